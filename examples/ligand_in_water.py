"""A ligand in water: the molecule under a trained potential, water under TIP3P; NPT, then metadynamics of a torsion.

python ligand_in_water.py MODEL [SMILES] [--steps 2000] [--padding 1.0]
"""

import argparse
from io import StringIO

import numpy as np
from openmm import CustomTorsionForce, LangevinMiddleIntegrator, MonteCarloBarostat, unit
from openmm.app import (
    PME,
    BiasVariable,
    DCDReporter,
    Element,
    ForceField,
    Metadynamics,
    Modeller,
    PDBFile,
    Simulation,
    StateDataReporter,
    Topology,
)
from openmmml import MLPotential
from tblite.interface import Calculator

from equistride.data.molecules import build
from equistride.data.tight_binding import TightBinding, relax
from equistride.units import BOHR

ASPIRIN = "CC(=O)OC1=CC=CC=C1C(=O)O"
GAFF = {
    "C3": (0.339967, 0.359824), "C4": (0.339967, 0.457730), "N": (0.325, 0.711280), "F": (0.311815, 0.255224),
    "O1": (0.295992, 0.878640), "OH": (0.306647, 0.880314), "O2": (0.300001, 0.711280),
    "H-O": (0.1, 0.0), "H-N": (0.106908, 0.065689), "H-C3": (0.259964, 0.062760), "H-C4": (0.264953, 0.065689),
}  # fmt: skip
"""Sigma [nm] and epsilon [kJ/mol] of the General Amber Force Field: by element and neighbours, hydrogen by its partner."""


def kind(atom: int, symbols: list[str], partners: dict[int, list[int]]) -> str:
    """Return the atom's row in GAFF."""
    symbol, around = symbols[atom], partners[atom]
    if symbol == "H":
        other = symbols[around[0]]
        return f"H-{other}" + ("" if other in "NO" else "4" if len(partners[around[0]]) == 4 else "3")
    if symbol == "C":
        return "C4" if len(around) == 4 else "C3"
    if symbol == "O":
        return "O1" if len(around) == 1 else "OH" if any(symbols[k] == "H" for k in around) else "O2"
    return symbol


def force_field(symbols: list[str], bonds: list[tuple[int, int]], charges: np.ndarray) -> ForceField:
    """TIP3P, and the ligand's charges and radii. Its bonds, angles and torsions are left out: the potential takes their place."""
    partners: dict[int, list[int]] = {k: [] for k in range(len(symbols))}
    for a, b in bonds:
        partners[a].append(b)
        partners[b].append(a)
    types, atoms, pairs = [], [], []
    for k, symbol in enumerate(symbols):
        sigma, epsilon = GAFF[kind(k, symbols, partners)]
        mass = Element.getBySymbol(symbol).mass._value
        types.append(f'<Type name="lig{k}" class="lig{k}" element="{symbol}" mass="{mass}"/>')
        atoms.append(f'<Atom name="{symbol}{k}" type="lig{k}" charge="{charges[k]:.6f}"/>')
        pairs.append(f'<Atom type="lig{k}" sigma="{sigma}" epsilon="{epsilon}"/>')
    joined = [f'<Bond atomName1="{symbols[a]}{a}" atomName2="{symbols[b]}{b}"/>' for a, b in bonds]
    xml = (
        f"<ForceField><AtomTypes>{''.join(types)}</AtomTypes><Residues><Residue name='LIG'>{''.join(atoms + joined)}"
        "</Residue></Residues><NonbondedForce coulomb14scale='0.833333' lj14scale='0.5'>"
        f"<UseAttributeFromResidue name='charge'/>{''.join(pairs)}</NonbondedForce></ForceField>"
    )
    return ForceField("tip3p.xml", StringIO(xml))


def rotatable(symbols: list[str], bonds: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    """Return four heavy atoms around the bond that divides the heavy atoms most evenly, no bond of a ring."""
    heavy = [(a, b) for a, b in bonds if "H" not in (symbols[a], symbols[b])]
    best: tuple[int, tuple[int, int, int, int]] = (0, (0, 0, 0, 0))
    for cut in heavy:
        rest, side = [bond for bond in heavy if bond != cut], {cut[0]}
        while grown := {k for bond in rest if side & set(bond) for k in bond} - side:
            side |= grown
        total = len({k for bond in heavy for k in bond})
        ends = [next((k for bond in rest if at in bond for k in bond if k != at), None) for at in cut]
        if cut[1] not in side and None not in ends and min(len(side), total - len(side)) > best[0]:
            best = min(len(side), total - len(side)), (ends[0], *cut, ends[1])  # type: ignore[assignment]
    if not best[0]:
        raise SystemExit(
            "the ligand has no torsion of four heavy atoms; expected one, as aspirin has; choose another SMILES"
        )
    return best[1]


parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("smiles", nargs="?", default=ASPIRIN)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--padding", type=float, default=1.0, help="nm of water around the ligand")
options = parser.parse_args()

# the molecule, relaxed with GFN2-xTB, and its charges
molecule = build(options.smiles, np.random.default_rng(1))
positions = relax(TightBinding(molecule.numbers, molecule.positions), molecule.positions)
single = Calculator("GFN2-xTB", molecule.numbers, positions / BOHR)
single.set("verbosity", 0)
charges = np.asarray(single.singlepoint().get("charges"))
symbols = [Element.getByAtomicNumber(int(z)).symbol for z in molecule.numbers]
bonds = [(int(a), int(b)) for a, b in molecule.bonds]

# in water
topology = Topology()
residue = topology.addResidue("LIG", topology.addChain())
atoms = [topology.addAtom(f"{s}{k}", Element.getBySymbol(s), residue) for k, s in enumerate(symbols)]
for a, b in bonds:
    topology.addBond(atoms[a], atoms[b])
field = force_field(symbols, bonds, charges - charges.mean())
box = Modeller(topology, positions / 10 * unit.nanometer)
box.addSolvent(field, model="tip3p", padding=options.padding * unit.nanometer)
cutoff = min(0.9, 0.45 * min(box.topology.getUnitCellDimensions()._value))
water = field.createSystem(box.topology, nonbondedMethod=PME, nonbondedCutoff=cutoff * unit.nanometer)

# the ligand under the potential, all else under the force field
ligand = list(range(len(symbols)))
potential = MLPotential("equistride", modelPath=options.model)
system = potential.createMixedSystem(box.topology, water, ligand)
system.addForce(MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin))
torsion = CustomTorsionForce("theta")
torsion.addTorsion(*rotatable(symbols, bonds))
angle = BiasVariable(torsion, -np.pi, np.pi, 0.35, True)
bias = Metadynamics(system, [angle], 300 * unit.kelvin, 6.0, 1.0 * unit.kilojoule_per_mole, 50)

bath = LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond)
simulation = Simulation(box.topology, system, bath)
simulation.context.setPositions(box.positions)
simulation.minimizeEnergy(maxIterations=100)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
with open("ligand.pdb", "w") as file:
    PDBFile.writeFile(box.topology, simulation.context.getState(positions=True).getPositions(), file)
every = max(1, options.steps // 20)
simulation.reporters += [
    DCDReporter("ligand.dcd", every),
    StateDataReporter("ligand.csv", every, step=True, potentialEnergy=True, temperature=True, density=True, speed=True),
]
simulation.step(options.steps)  # constant pressure
bias.step(simulation, options.steps)  # and hills on the torsion
places = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
longest = max(bonds, key=lambda bond: float(np.linalg.norm(places[bond[0]] - places[bond[1]])))
if (length := float(np.linalg.norm(places[longest[0]] - places[longest[1]]))) > 0.25:
    name = "-".join(f"{symbols[k]}{k}" for k in longest)
    print(
        f"the bond {name} is {length:.2f} nm long: the potential does not hold this molecule; train it longer, on more frames"
    )
profile = bias.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)
names = "-".join(f"{symbols[k]}{k}" for k in rotatable(symbols, bonds))
print(f"{box.topology.getNumAtoms()} atoms, {len(ligand)} of them under the potential; torsion {names}")
print(f"free energy along it so far: {profile.max() - profile.min():.1f} kJ/mol from {options.steps // 50} hills")
