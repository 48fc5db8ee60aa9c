"""How far back a language model's loss has a gradient: |dL_T / ds_{T-k}| against k."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from errors import ConfigError
from models.transformer.block import Block
from models.transformer.models import TransformerLM

Array = jax.Array

GATES = {1: ("U",), 3: ("r", "z", "new"), 4: ("i", "f", "g", "o")}


class Radius(NamedTuple):
    """The spectral radius of one gate's recurrent matrix."""

    layer: str
    gate: str
    radius: float


def horizon(model: nn.Module, params: Any, inputs_BT: Any, targets_B: Any) -> np.ndarray:
    """Norms of the gradient of the last token's loss, by distance.

    The state s_t is all that a recurrent model carries on from a token (h and c of all
    layers); of a Transformer it is the residual stream of a token before every block.

    Args:
        inputs_BT: what the model reads.
        targets_B: what it is to say after the last token.

    Returns:
        (T - 1,): the median over rows of |dL_T / ds_{T-k}| for k = 1, ..., T - 1.
    """
    gradient = _through_layers if isinstance(model, TransformerLM) else _through_steps
    shifts = jax.jit(lambda *args: gradient(model, *args))(params, inputs_BT, targets_B)
    squares_BT = sum(np.square(np.asarray(x, np.float64)).sum(-1) for x in shifts)
    return np.sqrt(np.median(squares_BT, axis=0))[::-1][-inputs_BT.shape[1] + 1 :]


def _nll(logits_BV: Array, targets_B: Array) -> Array:
    """Summed over rows, none of which sees another."""
    rows = jnp.arange(len(targets_B))
    return -jax.nn.log_softmax(logits_BV)[rows, targets_B].sum()


def _through_steps(model: Any, params: Any, inputs_BT: Array, targets_B: Array) -> list[Array]:
    """Gradients (B, T - 1, H) of zeros that are added to each state of `step`."""
    rows, length = inputs_BT.shape
    start = model.init_carry(rows, length)
    start, _ = model.apply({"params": params}, start, inputs_BT[:, 0], method="step")

    def loss(shifts: Any) -> Array:
        def body(carry: Any, at: tuple) -> tuple[Any, Array]:
            token_B, shift = at
            carry = jax.tree.map(jnp.add, carry, shift)
            return model.apply({"params": params}, carry, token_B, method="step")

        _, logits_TBV = jax.lax.scan(body, start, (inputs_BT[:, 1:].T, shifts))
        return _nll(logits_TBV[-1], targets_B)

    zeros = jax.tree.map(lambda leaf: jnp.zeros((length - 1, *leaf.shape), leaf.dtype), start)
    return [leaf.swapaxes(0, 1) for leaf in jax.tree.leaves(jax.grad(loss)(zeros))]


def _through_layers(model: Any, params: Any, inputs_BT: Array, targets_B: Array) -> list[Array]:
    """Gradients (B, T, D) of zeros that are added to the input of each block.

    Raises:
        ConfigError: the blocks are one program under a scan.
    """
    if model.scan_layers or model.remat:
        raise ConfigError("The horizon needs config.model.scan_layers and remat False.")

    def loss(shifts: list[Array]) -> Array:
        left = list(shifts)

        def shifted(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
            if isinstance(context.module, Block) and context.method_name == "__call__":
                args = (args[0] + left.pop(0), *args[1:])
            return call(*args, **kwargs)

        with nn.intercept_methods(shifted):
            logits_BTV = model.apply({"params": params}, inputs_BT)
        return _nll(logits_BTV[:, -1], targets_B)

    zeros = jnp.zeros((*inputs_BT.shape, model.d_model))
    return jax.grad(loss)([zeros] * model.num_layers)


def spectral_radii(params: Any) -> list[Radius]:
    """Of each gate's square matrix in every recurrent layer; none in a Transformer."""
    found = []
    for path, leaf in jax.tree.leaves_with_path(params):
        names = [str(key.key) for key in path]
        if names[-1] != "recurrent":
            continue
        gates = GATES[leaf.shape[1] // leaf.shape[0]]
        blocks = np.split(np.asarray(leaf, np.float64), len(gates), axis=1)
        for gate, block in zip(gates, blocks, strict=True):
            radius = float(np.abs(np.linalg.eigvals(block)).max())
            found.append(Radius("/".join(names[:-1]), gate, radius))
    return found
