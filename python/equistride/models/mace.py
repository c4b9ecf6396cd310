"""MACE (Batatia et al., arXiv 2206.07697): message passing whose messages are polynomials of an atom's summed bonds.

Two layers are the rule: each sums bonds over neighbours as NequIP does, and then takes symmetric products of up to four of the
sums. Forces and virial are gradients taken by :class:`equistride.models.potential.ConservativePotential`.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.models.mace_config import MACEConfig
from equistride.models.mace_layer import MACELayer, SumsByNumber, SumsWithGate
from equistride.models.mace_radial import RadialFunctions
from equistride.nn.bonds import TOLERANCE, Bonds, refuse_short, splined
from equistride.nn.edge_block import RadialSplines
from equistride.nn.exchange import exchange, local_rows, pad_to_all
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.joint_embedding import JointEmbedding, NetworkNumber
from equistride.nn.radial import DistanceTransform
from equistride.nn.radial_table import RadialTable
from equistride.nn.repulsion import UNIVERSAL, NuclearRepulsion, Screening
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.symmetric_contraction import Bases
from equistride.nn.system import TableNumber


class Silent(nn.Module):
    """Reads nothing of a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros [n, 1]."""
        return x.new_zeros(x.size(0), 1)


def _system(config: MACEConfig) -> JointEmbedding | None:
    """Return what embeds charge and spin; None where the network knows neither."""
    if not config.features:
        return None
    numbers: dict[str, nn.Module] = {
        feature.name: TableNumber(feature.width, feature.lowest, feature.lowest + feature.classes - 1)
        if feature.classes
        else NetworkNumber(feature.width, feature.bias)
        for feature in config.features
    }
    widths = {feature.name: feature.width for feature in config.features}
    return JointEmbedding(
        config.channels, numbers.get("charge"), numbers.get("spin"), (widths.get("charge", 0), widths.get("spin", 0))
    )


class MACE(nn.Module):
    """The MACE network.

    Parameters
    ----------
    config
        Sizes and choices.
    num_species
        Number of elements; ``species`` indexes them.
    numbers
        Their atomic numbers.
    radii
        Their covalent radii [A], which distance transforms and the nuclear repulsion read.
    bases
        The coupled products of each layer, as a file has them; without, all of them.
    screening
        Of the nuclear repulsion.
    unit
        Energy of one unit of the network's output, in which the repulsion is given [eV].
    fused
        Run the native operators, or the plain ones.
    """

    def __init__(
        self,
        config: MACEConfig,
        num_species: int,
        *,
        numbers: Sequence[int] = (),
        radii: Sequence[float] = (),
        bases: Sequence[Bases] | None = None,
        screening: Screening = UNIVERSAL,
        unit: float = 1.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        needed = config.transform != "none" or config.repulsion_exponent is not None
        if needed and not len(numbers) == len(radii) == num_species:
            raise EquistrideError(
                "distance transforms and the nuclear repulsion need atomic numbers and covalent radii",
                expected=f"{num_species} of each", found=f"{len(numbers)} and {len(radii)}",
            )  # fmt: skip
        self.config, self.num_species, self.fused = config, num_species, fused
        self.cutoff = config.cutoff
        self.embedding = nn.Embedding(num_species, config.channels)
        self.system = _system(config)
        self.harmonics = SphericalHarmonics(config.l_max)
        transform = None
        if config.transform != "none":
            transform = DistanceTransform(config.transform, radii, config.transform_parameters)
        self.radial = RadialFunctions(config, transform)
        layers = [
            (SumsWithGate if divisor == "nonlinear" else SumsByNumber)(
                config, num_species, t, None if bases is None else bases[t], fused
            )
            for t, divisor in enumerate(config.divisors)
        ]
        self.layers = nn.ModuleList(layers)
        last = [config.channels, *config.readout_widths, 1]
        widths = [[config.channels, 1] if config.readouts == "all" else []] * (config.num_layers - 1) + [last]
        self.readouts = nn.ModuleList(
            ScalarNetwork(w, biases=config.readout_bias and w is last) if w else Silent() for w in widths
        )
        self.start_readout = ScalarNetwork([config.channels, 1]) if config.start_readout else None
        self.repulsion = None
        if config.repulsion_exponent is not None:
            self.repulsion = NuclearRepulsion(numbers, 1.0, config.repulsion_exponent, config.coulomb / unit, screening)
        radius = torch.tensor(list(radii), dtype=torch.float64)
        self.register_buffer("radius", radius, persistent=False)
        self.checked = True  # off where the caller looks at the lengths
        self.tabled, self.shortest = False, 0.0
        self.error, self.slope_error = 0.0, 0.0

    radius: Tensor

    @torch.jit.export
    def set_system(self, charge: float, spin: float) -> None:
        """Set total charge [e] and spin, as the network was taught it, for the calls to come."""
        if self.system is not None:
            self.system.set_numbers(charge, spin)
        elif charge != 0.0 or spin != 0.0:
            raise RuntimeError("the model knows no charge and no spin; choose one that was trained with them")

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] in units of the target scale.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge, sorted by receiver.

        Raises
        ------
        EquistrideError
            Where a bond is shorter than tables reach (a ``RuntimeError`` from TorchScript).
        """
        r = torch.linalg.vector_norm(vectors, dim=1)
        receiver, sender = species.index_select(0, edge_index[0]), species.index_select(0, edge_index[1])
        pair = receiver * self.num_species + sender
        if self.tabled:
            if self.checked:
                refuse_short(r.detach(), edge_index, self.shortest)
            basis = vectors[:, :0]
        else:
            basis = self.radial(r, pair)
        bonds = Bonds(edge_index, r.clamp(max=self.cutoff), self.harmonics(vectors), basis, pair)
        mine = local_rows(species)
        x = self.embedding.weight
        if self.system is not None:
            x = x + self.system()
        energies = vectors.new_zeros(mine.size(0))
        if self.start_readout is not None:
            energies = energies + self.start_readout(x).squeeze(1).index_select(0, mine)
        for k, (layer, readout) in enumerate(zip(self.layers, self.readouts)):  # noqa: B905 (TorchScript knows no strict=)
            sent = layer.send(x)  # type: ignore[operator]
            if k == 0:  # features follow from the element alone
                own = [row.index_select(0, mine) for row in layer.own_of_each(x, sent)]  # type: ignore[operator]
                sent = sent.index_select(0, species)
            else:
                own = layer.own(x, sent, mine)  # type: ignore[operator]
                sent = exchange(sent)
            x = layer(sent, own, bonds, mine)
            energies = energies + readout(x.split(layer.scalars, 1)[0]).squeeze(1)
        if self.repulsion is not None:
            reach = self.radius.to(r.dtype).index_select(0, receiver) + self.radius.to(r.dtype).index_select(0, sender)
            pairs = self.repulsion(r, r / reach, receiver, sender)
            energies = energies.index_add(0, edge_index[0], pairs)
        return pad_to_all(energies, species)

    def served(self, tolerance: float | None = TOLERANCE, shortest: float | None = None) -> "MACE":
        """Return a copy for serving, its products with their weights multiplied out: :func:`equistride.nn.bonds.splined`."""
        out = copy.deepcopy(self)
        for layer in out.layers:
            assert isinstance(layer, MACELayer)
            layer.product = layer.product.frozen()
        return splined(out, _tabulate, tolerance, shortest)


def _tabulate(network: MACE, start: float, tolerance: float) -> Iterator[RadialTable | RadialSplines]:
    for layer in network.layers:
        assert isinstance(layer, MACELayer)
        yield from layer.tabulate(network.radial, network.num_species, start, tolerance)
