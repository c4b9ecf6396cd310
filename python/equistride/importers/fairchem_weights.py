"""fairchem's weights under the names of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from equistride.importers.fairchem_config import need
from equistride.importers.fairchem_heads import Heads
from equistride.models.esen import ESENConfig

RADIAL = {"0": "first", "1": "norm1", "3": "second", "4": "norm2", "6": "last"}


class _Reader:
    """Takes tensors out of fairchem's state dict by our names."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state, self.ours = state, dict[str, Tensor]()

    def tensor(self, key: str) -> Tensor:
        need(key in self.state, "the checkpoint lacks weights that its configuration needs", expected=key,
              hint="give the file of an eSEN model")  # fmt: skip
        return self.state[key]

    def copy(self, source: str, target: str, kinds: Sequence[str] = ("weight", "bias")) -> None:
        for kind in kinds:
            self.ours[f"{target}.{kind}"] = self.tensor(f"{source}.{kind}")

    def norm(self, source: str, target: str) -> None:
        for kind in ("weight", "bias"):
            self.ours[f"{target}.{kind}"] = self.tensor(f"{source}.affine_{kind}")

    def radial(self, source: str, target: str) -> None:
        for number, name in RADIAL.items():
            self.copy(f"{source}.rad_func.net.{number}", f"{target}.{name}")


def system_weights(state: Mapping[str, Tensor], config: ESENConfig, row: str) -> dict[str, Tensor]:
    """Return the weights of the embedding of charge and spin, float64; that of the dataset is constant and goes into a bias.

    Parameters
    ----------
    state, config
        As for :func:`translate`.
    row
        Dataset whose embedding is taken; not read where there is none.
    """
    reader = _Reader(state)
    names = {"positional": ("W", "frequencies"), "linear": ("lin_emb", "linear"), "table": ("rand_emb", "table")}
    theirs, ours = names[config.charge_spin]
    for number in ("charge", "spin"):
        source, target = f"backbone.{number}_embedding.{theirs}", f"of_{number}.{ours}"
        if config.charge_spin == "positional":
            reader.ours[target] = reader.tensor(source)
        else:
            reader.copy(source, target, ("weight",) if config.charge_spin == "table" else ("weight", "bias"))
    weight, bias = reader.tensor("backbone.mix_csd.weight").double(), reader.tensor("backbone.mix_csd.bias").double()
    width = 2 * config.channels
    if weight.size(1) > width:
        known = [k.split(".")[-2] for k in state if k.startswith("backbone.dataset_embedding.")]
        need(
            row in known, "the checkpoint was trained on several datasets and does not know this one",
            expected=", ".join(known), found=row or "none", hint="name one with --dataset",
        )  # fmt: skip
        of_row = reader.tensor(f"backbone.dataset_embedding.dataset_emb_dict.{row}.weight")[0]
        bias = bias + weight[:, width:] @ of_row.double()
    reader.ours["mix.weight"], reader.ours["mix.bias"] = weight[:, :width], bias
    return {name: tensor.double() for name, tensor in reader.ours.items()}


def translate(state: Mapping[str, Tensor], config: ESENConfig, heads: Heads) -> dict[str, Tensor]:
    """Return fairchem's weights under our names, float64; those of :func:`system_weights` are not among them.

    Parameters
    ----------
    state
        Its state dict, ``backbone.*`` and ``output_heads.*`` (or ``head.*``).
    config
        Of :func:`equistride.importers.fairchem_config.config_of`.
    heads
        Of :func:`equistride.importers.fairchem_heads.heads_of`.
    """
    reader = _Reader(state)
    ours = reader.ours
    for theirs, name in (("sphere", "embedding.weight"), ("source", "sender"), ("target", "receiver")):
        ours[name] = reader.tensor(f"backbone.{theirs}_embedding.weight")
    if "backbone.force_embedding.bias" in state:  # of denoising: all that is left of it where no forces are given
        ours["embedding.weight"] = ours["embedding.weight"] + state["backbone.force_embedding.bias"]
    reader.norm("backbone.norm", "norm")
    reader.radial("backbone.edge_degree_embedding", "edge_degree")
    if config.basis == "bessel":
        ours["basis.frequencies"] = reader.tensor("backbone.distance_expansion.rbf.frequencies")
    for k in range(config.num_layers):
        source, target = f"backbone.blocks.{k}", f"blocks.{k}"
        for n in "12":
            reader.norm(f"{source}.norm_{n}", f"{target}.norm{n}")
        for n, name in (("1", "first"), ("2", "second")):
            convolution = f"{source}.edge_wise.so2_conv_{n}"
            reader.copy(f"{convolution}.fc_m0", f"{target}.edgewise.{name}.scalar")
            for m in range(config.m_max):
                reader.copy(f"{convolution}.so2_m_conv.{m}.fc", f"{target}.edgewise.{name}.orders.{m}", ("weight",))
        reader.radial(f"{source}.edge_wise.so2_conv_1", f"{target}.edgewise.radial")
        if config.feed_forward == "spectral":
            reader.copy(f"{source}.atom_wise.scalar_mlp.0", f"{target}.feed_forward.gates")
            reader.copy(f"{source}.atom_wise.so3_linear_1", f"{target}.feed_forward.up")
            reader.copy(f"{source}.atom_wise.so3_linear_2", f"{target}.feed_forward.down")
        else:
            for n, name in (("0", "first"), ("2", "second"), ("4", "last")):
                reader.copy(f"{source}.atom_wise.grid_mlp.{n}", f"{target}.feed_forward.{name}", ("weight",))
    for n in "024":
        layer = f"{heads.energy}energy_block.{n}"
        if heads.slice is None:
            reader.copy(layer, f"head.{n}")
        else:
            ours[f"head.{n}.weight"] = reader.tensor(f"{layer}.weights")[heads.slice]
            ours[f"head.{n}.bias"] = reader.tensor(f"{layer}.bias")
    if config.forces == "direct":
        reader.copy(f"{heads.forces}linear", "force_head")
    return {name: tensor.double() for name, tensor in ours.items()}
