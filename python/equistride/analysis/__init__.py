"""What a trajectory says: energies, structure, vibrations, diffusion, and the report that shows them."""

from equistride.analysis.angles import AngleDistribution, angle_distribution
from equistride.analysis.blocks import Estimate, block_average, statistical_inefficiency
from equistride.analysis.drift import Drift, Exponent, energy_drift, energy_error_exponent, protocol_drift
from equistride.analysis.msd import MSD, Diffusion, mean_square_displacement
from equistride.analysis.periodic import unwrap
from equistride.analysis.rdf import (
    RDF,
    Coordination,
    coordination_number,
    radial_distribution,
    radial_distributions,
    rdf_difference,
    rdf_noise,
)
from equistride.analysis.readers import read_trajectory, write_npz
from equistride.analysis.report import write_report
from equistride.analysis.summary import Analysis, Bounds, analyse
from equistride.analysis.temperature import (
    Equipartition,
    MaxwellTest,
    equipartition,
    kinetic_energy,
    kinetic_temperature,
    maxwell_test,
    momentum,
)
from equistride.analysis.thermo import Segment, read_state_csv, segment_of
from equistride.analysis.trajectory import Trajectory
from equistride.analysis.vdos import VDOS, find_peaks, vibrational_density

__all__ = [
    "MSD",
    "RDF",
    "VDOS",
    "Analysis",
    "AngleDistribution",
    "Bounds",
    "Coordination",
    "Diffusion",
    "Drift",
    "Equipartition",
    "Estimate",
    "Exponent",
    "MaxwellTest",
    "Segment",
    "Trajectory",
    "analyse",
    "angle_distribution",
    "block_average",
    "coordination_number",
    "energy_drift",
    "energy_error_exponent",
    "equipartition",
    "find_peaks",
    "kinetic_energy",
    "kinetic_temperature",
    "maxwell_test",
    "mean_square_displacement",
    "momentum",
    "protocol_drift",
    "radial_distribution",
    "radial_distributions",
    "rdf_difference",
    "rdf_noise",
    "read_state_csv",
    "read_trajectory",
    "segment_of",
    "statistical_inefficiency",
    "unwrap",
    "vibrational_density",
    "write_npz",
    "write_report",
]
