"""Which axes of arrays are spread over which axes of the mesh: config.parallel.rules.

The models name the axes of their parameters and of some activations; a rule gives such a name
axes of the mesh (data, fsdp, tensor), or none. Two axes of one array never share one.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import registry
from errors import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")
Axes = tuple[Literal["data", "fsdp", "tensor"], ...]
WHERE = "config.parallel.rules"


@dataclass(frozen=True)
class AxisRules:
    """For each name the axes of the mesh over which such an axis is spread; () is none.

    The defaults are fully sharded data parallelism over `fsdp` (Rajbhandari et al. 2020: rows of
    a batch and one axis of each matrix, which is put together where it is used) and tensor
    parallelism over `tensor` (Shoeybi et al. 2019: heads, inner units of the feed-forward layer,
    gates, vocabulary). batch=data, length=fsdp spreads the places of long rows instead of rows.

    Attributes:
        batch, length, residual: of activations: rows, places in a row, and their width.
        embed: the side of a matrix that is as wide as the model; state: that of a recurrent
            matrix that reads the state; hidden: other sides that read or make states.
        vocab, heads, mlp, gates: the sides that tensor parallelism cuts. `mlp` is also the width
            of the activations within a feed-forward layer.
        kv, kv_heads: width of a head, and shared heads of keys and values.
        positions, layers: rows of a table of positions, and layers under one scan.
    """

    batch: Axes = ("data", "fsdp")
    length: Axes = ()
    residual: Axes = ()
    embed: Axes = ("fsdp",)
    state: Axes = ("fsdp",)
    hidden: Axes = ()
    vocab: Axes = ("tensor",)
    heads: Axes = ("tensor",)
    mlp: Axes = ("tensor",)
    gates: Axes = ("tensor",)
    kv: Axes = ()
    kv_heads: Axes = ()
    positions: Axes = ()
    layers: Axes = ()

    def pairs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, axes of the mesh), as flax.linen.logical_axis_rules has them."""
        return tuple(dataclasses.asdict(self).items())

    def check(self, names: Sequence[str | None], what: str) -> None:
        """Refuses an array with these names of axes; `what` is how the sentence calls it.

        Raises:
            ConfigError: two of its axes are spread over the same axis of the mesh.
        """
        taken: dict[str, str | None] = {}
        for name in names:
            for axis in getattr(self, name) if name else ():
                if axis in taken:
                    raise ConfigError(
                        f"{WHERE} spreads {taken[axis]!r} and {name!r} of {what} over "
                        f"{axis!r}: it has one axis for each, so give one of them another."
                    )
                taken[axis] = name


ACTIVATIONS = (("batch", "length", "residual"), ("batch", "length", "mlp"))


def complete(block: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The rules of a config, checked, with the defaults of those that it leaves out.

    Args:
        block: axes of the mesh by name: a list, words divided by commas, or None for none.

    Raises:
        ConfigError: an unknown name or axis, or an axis twice for one array of activations.
    """

    def listed(axes: Any) -> Any:
        words = axes.split(",") if isinstance(axes, str) else axes
        return () if words in ([""], None) else words

    given = {name: listed(axes) for name, axes in block.items()}
    checked = registry.check_options("rules", AxisRules, given, WHERE)
    rules = AxisRules(**checked)
    for names in (*((name,) for name in checked), *ACTIVATIONS):
        rules.check(names, "activations" if len(names) > 1 else "an array")
    return dict(rules.pairs())
