"""Lower layers learn more slowly: discriminative fine-tuning (Howard & Ruder 2018, section 3.1)."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trees import named_leaves

# A layer of a stack: "decoder/layers_3/", "encoder_0/"; "decoder/layers/" is all on one axis.
LAYER = re.compile(
    r"(?P<stack>(.*/)?(layers|encoder|decoder|forward|backward))(_(?P<number>\d+)|(?<=layers))/"
)
BELOW = re.compile("embed|positions/")  # what stands below the first layer


def decay_layers(
    optimizer: optax.GradientTransformation, params: Any, decay: float
) -> optax.GradientTransformation:
    """The optimizer with a learning rate for each layer: the rate of the layer above, times decay.

    Args:
        params: the tree of parameters, or of their shapes.
        decay: 1 changes nothing; Howard & Ruder take 1 / 2.6.
    """
    if decay == 1:
        return optimizer
    scales = rates({name: leaf.shape for name, leaf in named_leaves(params).items()}, decay)
    tree = jax.tree.unflatten(jax.tree.structure(params), list(scales.values()))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree.map(lambda u, s: u * s.astype(u.dtype), updates, tree), state

    scale = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    return optax.chain(optimizer, scale)


def rates(shapes: Mapping[str, tuple[int, ...]], decay: float) -> dict[str, jax.Array]:
    """decay^(steps below the top) of each parameter, shaped so that it multiplies the array.

    What stands above all layers (heads, the last norm, the output layer) is the top, the last layer
    of a stack is one step below it, and embeddings and positions are one below the first layer of
    the deepest stack. The layers of an encoder and of a decoder are counted alike, from the last.
    """
    layers = {name: LAYER.match(name) for name in shapes}
    depths: dict[str | None, int] = {}
    for name, layer in layers.items():
        if layer:
            number = layer["number"]
            count = int(number) + 1 if number else shapes[name][0]
            depths[layer["stack"]] = max(depths.get(layer["stack"], 0), count)
    deepest = max(depths.values(), default=0)

    def steps(name: str) -> Any:
        layer = layers[name]
        if not layer:
            return deepest + 1 if BELOW.search(name) else 0
        depth = depths[layer["stack"]]
        if layer["number"]:
            return depth - int(layer["number"])
        return (depth - jnp.arange(depth)).reshape(-1, *[1] * (len(shapes[name]) - 1))

    return {name: decay ** jnp.asarray(steps(name), jnp.float32) for name in shapes}
