"""Recurrent cells: one definition serves the whole sequence and a single step.

What they share stands in cell.py. `advance_of` adds what all cells may have: variational
dropout and zoneout.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.recurrent.cell import ONES, ZEROS, Array, Carry, Cell, Linear, sigmoid
from models.recurrent.options import CellOptions
from trees import constrain

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


class ElmanCell(Cell):
    """h_t = f(W x_t + U h_{t-1} + b) with f = tanh, relu or sigmoid (Elman 1990).

    With layer norm f(LN(W x_t + U h_{t-1}) + b) (Ba et al. 2016, equation 4).
    """

    def _vectors(self) -> dict[str, tuple[Any, int]]:
        sized = (ONES, self.hidden_size), (ZEROS, self.hidden_size)
        return dict(zip(("scale", "bias"), sized, strict=True)) if self.options.layer_norm else {}

    @staticmethod
    def update(
        options: CellOptions, linear: Linear, shared: dict, carry: Carry, gates: Array, fed: Array
    ) -> Carry:
        """One step; see the class."""
        gates = gates + linear("recurrent", fed)
        if options.layer_norm:
            gates = Cell.norm(gates, shared["scale"], shared["bias"])
        return (ACTIVATIONS[options.activation](gates),)


class LSTMCell(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with a forget gate
    (Gers et al. 2000).

      i, f, o = sigmoid(W x + U h + b)     g = tanh(W x + U h + b)
      c' = f * c + i * g                   h' = o * tanh(c')

    Peepholes (Gers et al. 2002) add p_i * c to i, p_f * c to f and p_o * c' to o. With layer
    norm (Ba et al. 2016, equations 20 to 22) the gates see LN(W x) + LN(U h) + b, and
    h' = o * tanh(LN(c')).
    """

    num_gates = 4
    num_states = 2

    def _vectors(self) -> dict[str, tuple[Any, int]]:
        vectors, hidden = super()._vectors(), self.hidden_size
        if self.options.layer_norm:
            vectors |= {"cell_scale": (ONES, hidden), "cell_bias": (ZEROS, hidden)}
        if self.options.peepholes:
            vectors["peephole"] = (ZEROS, 3 * hidden)
        return vectors

    def _bias_init(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        hidden = self.hidden_size
        return jnp.zeros(shape, dtype).at[hidden : 2 * hidden].set(self.options.forget_bias)

    def matrices(self) -> tuple[Array, Array, Array]:
        """W, U and b without options, for another kernel."""
        dense = self.input.variables["params"]
        return dense["kernel"], self.recurrent, dense["bias"]

    @staticmethod
    def start(h_BH: Array) -> Carry:
        """c = 0 and h."""
        return jnp.zeros_like(h_BH), h_BH

    @staticmethod
    def update(
        options: CellOptions, linear: Linear, shared: dict, carry: Carry, gates: Array, fed: Array
    ) -> Carry:
        """One step from the gates i, f, g, o; see the class."""
        c, product = carry[0], linear("recurrent", fed)
        if options.layer_norm:
            product = Cell.norm(product, shared["state_scale"])
        gates = gates + product
        if options.peepholes:
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            to_i, to_f, to_o = jnp.split(shared["peephole"], 3)
            i, f, g = sigmoid(i + to_i * c), sigmoid(f + to_f * c), jnp.tanh(g)
            c = f * c + i * g
            o = sigmoid(o + to_o * c)
        else:
            # sigmoid(x) = (1 + tanh(x / 2)) / 2, so one tanh serves all four gates; half is 1
            # for g, whose offset 1 - half is 0: it stays a plain tanh.
            half = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], c.dtype), c.shape[-1])
            i, f, g, o = jnp.split(jnp.tanh(gates * half) * half + (1 - half), 4, axis=-1)
            c = f * c + i * g
        seen = Cell.norm(c, shared["cell_scale"], shared["cell_bias"]) if options.layer_norm else c
        return c, o * jnp.tanh(seen)


class ProjectedLSTMCell(LSTMCell):
    """The LSTM whose output is narrower than its cell (Sak et al. 2014).

    h' = P (o * tanh(c'))      with P of shape (hidden_size, state_features)
    """

    def setup(self) -> None:
        super().setup()
        init = nn.with_logical_partitioning(nn.initializers.xavier_uniform(), ("hidden", "embed"))
        shape = (self.hidden_size, self.state_features)
        self.projection = self.param("projection", init, shape, jnp.float32)

    def weights(self) -> dict[str, Array]:
        return super().weights() | {
            "projection": constrain(self.projection.astype(self.dtype), "hidden", None)
        }

    def zeros(self, batch_size: int) -> Carry:
        sizes = (self.hidden_size, self.state_features)
        return tuple(jnp.zeros((batch_size, size), self.dtype) for size in sizes)

    @staticmethod
    def update(
        options: CellOptions, linear: Linear, shared: dict, carry: Carry, gates: Array, fed: Array
    ) -> Carry:
        """One step of the LSTM, then the projection."""
        c, wide = LSTMCell.update(options, linear, shared, carry, gates, fed)
        return c, linear("projection", wide)


class GRUCell(Cell):
    """Gated recurrent unit (Cho et al. 2014) whose reset comes after the product.

      r = sigmoid(W_r x + U_r h)     h' = tanh(W x + r * (U h))
      z = sigmoid(W_z x + U_z h)     h_t = z * h_{t-1} + (1 - z) * h'

    and a bias with each W x; recurrent_bias adds one to U h. With layer norm every W x and
    U h is normalised, r and z together (Ba et al. 2016, supplement).
    """

    num_gates = 3

    def _vectors(self) -> dict[str, tuple[Any, int]]:
        bias = {"recurrent_bias": (ZEROS, self.hidden_size)} if self.options.recurrent_bias else {}
        return super()._vectors() | bias

    @staticmethod
    def norm(gates: Array, scale: Array, bias: Any = 0) -> Array:
        """Layer norm of r and z together, and of the candidate."""
        at = (2 * gates.shape[-1] // 3,)
        bias = jnp.broadcast_to(bias, scale.shape)
        parts = zip(*(jnp.split(x, at, axis=-1) for x in (gates, scale, bias)), strict=True)
        return jnp.concatenate([Cell.norm(*part) for part in parts], axis=-1)

    @staticmethod
    def update(
        options: CellOptions, linear: Linear, shared: dict, carry: Carry, gates: Array, fed: Array
    ) -> Carry:
        """One step from the gates r, z and the candidate; see the class."""
        (h,), product = carry, linear("recurrent", fed)
        if options.layer_norm:
            product = GRUCell.norm(product, shared["state_scale"])
        at = (2 * h.shape[-1],)
        gates_rz, gates_new = jnp.split(gates, at, axis=-1)
        product_rz, product_new = jnp.split(product, at, axis=-1)
        r, z = jnp.split(sigmoid(gates_rz + product_rz), 2, axis=-1)
        if options.recurrent_bias:
            product_new = product_new + shared["recurrent_bias"]
        new = jnp.tanh(gates_new + r * product_new)
        return (new + z * (h - new),)


CELLS: dict[str, type[Cell]] = {
    "lstm": LSTMCell,
    "projected_lstm": ProjectedLSTMCell,
    "gru": GRUCell,
    "rnn": ElmanCell,
}


@functools.cache  # hoisted_scan compiles anew for each function object
def advance_of(options: CellOptions) -> Callable[..., Carry]:
    """advance(linear, shared, carry, x, fed): one step of the cell that the options name.

    x is {"gates": what `Cell.inputs` gave, and the masks of each step}; shared is
    {the vectors of `Cell.shared`, and the masks of all steps}; the masks are those of
    `Cell.noise`, and there are none outside training.
    """
    update = CELLS[options.cell].update

    def advance(linear: Linear, shared: dict, carry: Carry, x: dict, fed: Array) -> Carry:
        if "fed_mask" in shared:
            fed = fed * shared["fed_mask"]
        new = update(options, linear, shared, carry, x["gates"], fed)
        if not options.zoneout_rate:
            return new
        # Outside training each state takes its expected value.
        renew: Any = [1 - options.zoneout_rate] * len(new)
        if "renew" in x:
            renew = jnp.split(x["renew"], len(new), axis=-1)
        return tuple(o + r * (n - o) for o, n, r in zip(carry, new, renew, strict=True))

    return advance
