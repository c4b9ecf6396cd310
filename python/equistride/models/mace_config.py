"""Sizes and choices of a MACE network."""

from typing import Annotated, Literal

from e3nn.o3 import Irreps
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equistride.nn.equivariant import natural_irreps, with_channels
from equistride.nn.repulsion import COULOMB

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Divisor = Literal["number", "density", "nonlinear"]
"""Of the sums over neighbours: their mean number; a learnt density; that, in a layer with a gate behind the sums."""


class FeatureConfig(BaseModel):
    """How one number of the whole system is embedded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["charge", "spin"]
    """Total charge [e], or the spin as the network was taught it: the multiplicity as a rule."""
    classes: int = Field(0, ge=0)
    """Rows of a table of whole numbers; 0: a network of the number."""
    lowest: int = 0
    """Number of the table's first row."""
    width: Size
    bias: bool = True
    """Of a network's layers."""


class MACEConfig(BaseModel):
    """Sizes and choices of a MACE network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["mace"] = "mace"
    cutoff: Positive = 6.0
    """Cutoff radius [A]."""
    num_layers: Size = 2
    l_max: int = Field(3, ge=0, le=4)
    """Largest degree of harmonics and of the summed bonds."""
    l_features: int = Field(1, ge=0, le=3)
    """Largest degree of the features between layers."""
    channels: Size = 128
    sent_channels: tuple[tuple[Size, ...], ...] | None = None
    """Layer by layer, channels of each degree from 0 up that neighbours send; as many as there are where not given."""
    correlation: tuple[Annotated[int, Field(ge=1, le=4)], ...] = (3, 3)
    """Factors of the products, layer by layer."""
    agnostic: bool = False
    """The products have one set of weights for all elements."""
    num_basis: Size = 8
    envelope_exponent: int = Field(5, ge=2)
    envelope_last: bool = False
    """The envelope multiplies the weights of the bonds, not the functions that go into their network."""
    radial_widths: tuple[Size, ...] = (64, 64, 64)
    """Hidden layers of the networks that weight the bonds."""
    density_widths: tuple[Size, ...] = (64,)
    """Hidden layers of the networks of densities in nonlinear layers."""
    divisors: tuple[Divisor, ...] = ("number", "number")
    """What the sums over neighbours are divided by, layer by layer."""
    avg_num_neighbors: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.0)
    """The mean number of neighbours, layer by layer. 0: that of the training data."""
    residual: tuple[bool, ...] = (True, True)
    """Whether an atom's own features are added after the products; else they are mixed by element before them."""
    transform: Literal["none", "agnesi", "soft"] = "none"
    """Of distances, by the covalent radii of the two elements, before the radial functions."""
    transform_parameters: tuple[float, ...] = ()
    readouts: Literal["all", "last"] = "all"
    """Which layers add to the energy."""
    readout_widths: tuple[Size, ...] = (16,)
    """Hidden layers of the network that reads the last layer."""
    readout_bias: bool = False
    """Its layers, but the first, have biases."""
    features: tuple[FeatureConfig, ...] = ()
    """Numbers of the whole system that are added to the features at the start."""
    start_readout: bool = False
    """The features at the start add to the energy."""
    repulsion_exponent: int | None = Field(None, ge=2)
    """p of the envelope of a nuclear repulsion, where there is one; it ends where covalent spheres touch."""
    coulomb: Positive = COULOMB
    """e^2 / (4 pi eps0) [eV A]."""

    @model_validator(mode="after")
    def _fitting(self) -> "MACEConfig":
        for name in ("correlation", "avg_num_neighbors", "residual", "divisors"):
            if len(getattr(self, name)) != self.num_layers:
                raise ValueError(f"{name} needs {self.num_layers} entries, one a layer")
        if self.l_features > self.l_max:
            raise ValueError("l_features must not be above l_max")
        sent = self.sent_channels
        if sent is not None and (len(sent) != self.num_layers or not all(sent)):
            raise ValueError(f"sent_channels needs {self.num_layers} entries, each with degree 0")
        if len(self.transform_parameters) != {"none": 0, "agnesi": 3, "soft": 1}[self.transform]:
            raise ValueError("transform_parameters are a, p and q for agnesi, the steepness for soft")
        if len({feature.name for feature in self.features}) != len(self.features):
            raise ValueError("features must not name a number twice")
        return self

    @property
    def harmonics(self) -> Irreps:
        """Irreps of the harmonics."""
        return with_channels(natural_irreps(self.l_max), 1)

    @property
    def degrees(self) -> list[int]:
        """Largest degree of the features at the start and after each layer."""
        return [0, *[self.l_features] * (self.num_layers - 1), 0]

    def sent(self, layer: int) -> list[int]:
        """Return the channels of each degree that neighbours send in a layer."""
        there = self.degrees[layer] + 1
        if self.sent_channels is None:
            return [self.channels] * there
        return list(self.sent_channels[layer][:there])

    @property
    def nonlinear(self) -> bool:
        """Whether a layer has bond weights with biases, which do not vanish where the radial functions do."""
        return "nonlinear" in self.divisors

    @property
    def factored(self) -> bool:
        """Whether a factor of the bond weights comes behind the radial functions: the envelope, or 1 up to the cutoff."""
        return self.envelope_last or self.nonlinear

    @property
    def forces(self) -> str:
        """Where forces come from: always the gradient of the energy."""
        return "gradient"

    @property
    def message_passing_steps(self) -> int:
        """Sums over neighbours that follow one another."""
        return self.num_layers

    @property
    def caveats(self) -> list[str]:
        """Why molecular dynamics with this network cannot conserve energy; empty where it can."""
        if self.nonlinear and not self.envelope_last:
            return ["no envelope on the weights of bonds: energy and forces jump as an atom crosses the cutoff"]
        return []
