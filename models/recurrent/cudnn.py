"""The LSTM of NVIDIA's cuDNN, through jax.experimental.rnn: the same parameters and results.

cuDNN has two biases where we have one, so the second is zero. It reads padding on the right
of a row only, and its outputs there are zero where ours repeat the last state.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import rnn

from errors import ConfigError

Array = jax.Array


def pack(kernel_DG: Array, recurrent_HG: Array, bias_G: Array) -> Array:
    """One layer's weights as cuDNN's flat array: W_ih, W_hh, b_ih, b_hh, each with the gates
    i, f, g, o one below the other."""
    parts = (kernel_DG.T, recurrent_HG.T, bias_G, jnp.zeros_like(bias_G))
    return jnp.concatenate([part.reshape(-1) for part in parts])


def layer(
    matrices: tuple[Array, Array, Array],
    reverse: bool,
    carry: tuple[Array, Array],
    xs: dict,
    kernel: Callable | None = None,
) -> tuple[tuple[Array, Array], Array]:
    """What `RecurrentLayer` computes for an LSTM.

    Args:
        matrices: kernel, recurrent matrix and bias of the cell.
        reverse: from the last token to the first.
        carry: c and h before the first step, (B, H) each.
        xs: "inputs" (T, B, D) and, where rows are padded on the right, "valid" (T, B, 1).
        kernel: stands in for cuDNN's, for tests where there is no GPU.

    Returns:
        ((c, h) after each row's last token, outputs (T, B, H), zero at padding).

    Raises:
        ConfigError: the inputs are not float32; a state must be cleared within a row.
    """
    x_TBD, (c_BH, h_BH) = xs["inputs"], carry
    if "keep" in xs:
        raise ConfigError("config.model.kernel='cudnn' cannot clear a state within a packed row.")
    if x_TBD.dtype != jnp.float32:
        raise ConfigError("config.model.kernel='cudnn' needs config.model.dtype='float32'.")
    kernel = kernel or rnn.lstm
    length, batch_size, width = x_TBD.shape
    lengths_B = jnp.full(batch_size, length, jnp.int32)
    if "valid" in xs:
        lengths_B = xs["valid"].sum((0, 2)).astype(jnp.int32)
    x_BTD = _flipped(x_TBD.swapaxes(0, 1), lengths_B, reverse)
    # An empty row would be read at place -1.
    y_BTH, h_1BH, c_1BH = kernel(
        x_BTD, h_BH[None], c_BH[None], pack(*matrices), jnp.maximum(lengths_B, 1),
        width, h_BH.shape[-1], 1, 0.0, False,
    )  # fmt: skip
    y_TBH = _flipped(y_BTH, lengths_B, reverse).swapaxes(0, 1)
    some_B1 = lengths_B[:, None] > 0
    return (jnp.where(some_B1, c_1BH[0], c_BH), jnp.where(some_B1, h_1BH[0], h_BH)), y_TBH


def _flipped(x_BTD: Array, lengths_B: Array, reverse: bool) -> Array:
    """Each row with its tokens in the other order and its padding still behind them."""
    if not reverse:
        return x_BTD
    places_T = jnp.arange(x_BTD.shape[1])
    last_B1 = lengths_B[:, None] - 1
    at_BT = jnp.where(places_T <= last_B1, last_B1 - places_T, places_T)
    return jnp.take_along_axis(x_BTD, at_BT[..., None], axis=1)
