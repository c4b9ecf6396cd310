"""What a trajectory says: structure, temperature, vibrations, diffusion, and the report that shows them."""

from equistride.data.unwrap import unwrap
from equistride.trajectories.angles import AngleDistribution, angle_distribution
from equistride.trajectories.msd import MSD, Diffusion, mean_square_displacement
from equistride.trajectories.rdf import (
    RDF,
    Coordination,
    coordination_number,
    radial_distribution,
    radial_distributions,
    rdf_difference,
    rdf_noise,
)
from equistride.trajectories.readers import read_trajectory, write_npz
from equistride.trajectories.report import write_report
from equistride.trajectories.summary import Analysis, Bounds, analyse
from equistride.trajectories.temperature import (
    Equipartition,
    MaxwellTest,
    equipartition,
    kinetic_energy,
    kinetic_temperature,
    maxwell_test,
    momentum,
)
from equistride.trajectories.thermo import Segment, read_state_csv, segment_of
from equistride.trajectories.trajectory import Trajectory
from equistride.trajectories.vdos import VDOS, find_peaks, vibrational_density

__all__ = [
    "MSD",
    "RDF",
    "VDOS",
    "Analysis",
    "AngleDistribution",
    "Bounds",
    "Coordination",
    "Diffusion",
    "Equipartition",
    "MaxwellTest",
    "Segment",
    "Trajectory",
    "analyse",
    "angle_distribution",
    "coordination_number",
    "equipartition",
    "find_peaks",
    "kinetic_energy",
    "kinetic_temperature",
    "maxwell_test",
    "mean_square_displacement",
    "momentum",
    "radial_distribution",
    "radial_distributions",
    "rdf_difference",
    "rdf_noise",
    "read_state_csv",
    "read_trajectory",
    "segment_of",
    "unwrap",
    "vibrational_density",
    "write_npz",
    "write_report",
]
