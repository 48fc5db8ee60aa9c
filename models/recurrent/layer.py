"""Layers that run a cell over a sequence: padding, resets, both directions, stacks."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import Dropout
from models.recurrent import cudnn
from models.recurrent.cells import CELLS, Linear, advance_of
from models.recurrent.options import CellOptions
from models.recurrent.scan import Step, hoisted_scan
from models.remat import Remat, rematerialised

Array = jax.Array
Carry = Any


@functools.cache  # hoisted_scan compiles anew for each function object
def _step_of(options: CellOptions) -> Step:
    """A step for hoisted_scan that clears the state at a reset and holds it at padding.

    x has "keep", 0 at a reset, and "valid", 0 at padding, only where there are such places.
    """
    advance = advance_of(options)

    def step(linear: Linear, shared: dict, carry: Carry, x: dict) -> tuple[Carry, Array]:
        if "keep" in x:
            carry = jax.tree.map(lambda leaf: jnp.where(x["keep"] > 0, leaf, 0), carry)
        new = advance(linear, shared, carry, x, carry[-1])
        if "valid" in x:
            new = jax.tree.map(lambda n, old: jnp.where(x["valid"] > 0, n, old), new, carry)
        return new, new[-1]

    return step


class RecurrentLayer(nn.Module):
    """One cell over time, forwards or backwards.

    At padding the state stands still, so a padded row ends in the state of its last
    token, and a reverse layer starts at its last token.

    projection_size: width of the outputs of a projected LSTM.
    """

    hidden_size: int
    options: CellOptions = CellOptions()
    reverse: bool = False
    dtype: Any = jnp.float32
    projection_size: int = 0

    def setup(self) -> None:
        cell, width = CELLS[self.options.cell], self.projection_size or None
        self.unit = cell(self.hidden_size, self.options, width, self.dtype)

    def __call__(
        self,
        x_TBD: Array,
        valid_TB: Array | None = None,
        train: bool = False,
        resets_TB: Array | None = None,
        carry: Carry = None,
    ) -> tuple[Carry, Array]:
        """Runs over the leading axis, time.

        Args:
            x_TBD: inputs.
            valid_TB: True at tokens, False at padding; None if there is none.
            train: draws the masks of zoneout and variational dropout.
            resets_TB: True where a new segment begins and the state is cleared.
            carry: state before the first step; zeros if None.

        Returns:
            (carry after the last step, outputs (T, B, hidden_size)).
        """
        if carry is None:
            carry = self.unit.zeros(x_TBD.shape[1])
        x_TBD, each, every = self.unit.noise(x_TBD, train)
        xs = {"inputs": x_TBD, **each}
        if valid_TB is not None:
            xs["valid"] = valid_TB.astype(self.dtype)[..., None]
        if resets_TB is not None:
            xs["keep"] = 1 - resets_TB.astype(self.dtype)[..., None]
        if self.options.kernel == "cudnn" and not self.is_initializing():
            return cudnn.layer(self.unit.matrices(), self.reverse, carry, xs)
        chunk = self.options.remat_chunk
        if not 0 < chunk < x_TBD.shape[0] or self.is_initializing():
            return self._run(carry, every, xs)
        return self._run_in_chunks(chunk, carry, every, xs)

    def _run_in_chunks(self, chunk: int, carry: Carry, every: dict, xs: dict) -> tuple:
        """The same, keeping for the backward pass what enters and leaves each chunk only."""
        length = xs["inputs"].shape[0]
        whole = length - length % chunk
        once = nn.remat(RecurrentLayer._run, prevent_cse=False)
        scan = nn.scan(
            once,
            variable_broadcast="params",
            split_rngs={},
            in_axes=(nn.broadcast, 0),
            reverse=self.reverse,
        )
        chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), xs)
        rest = jax.tree.map(lambda x: x[whole:], xs)
        outputs = {}
        for run, part in ((once, rest), (scan, chunks))[:: 1 if self.reverse else -1]:
            carry, outputs[run] = run(self, carry, every, part)
        y_TBH = outputs[scan].reshape(whole, *outputs[scan].shape[2:])
        return carry, jnp.concatenate([y_TBH, outputs[once]])

    def _run(self, carry: Carry, every: dict, xs: dict) -> tuple[Carry, Array]:
        xs = {**xs, "gates": self.unit.inputs(xs["inputs"])}
        del xs["inputs"]
        shared = {**self.unit.shared(), **every}
        step = _step_of(self.options)
        return hoisted_scan(step, self.reverse, self.unit.weights(), shared, carry, xs)

    def step(self, carry: Carry, x_BD: Array) -> tuple[Carry, Array]:
        """One time step with the same parameters."""
        weights = self.unit.weights()
        x = {"gates": self.unit.inputs(x_BD)}
        return _step_of(self.options)(
            lambda name, h: h @ weights[name], self.unit.shared(), carry, x
        )


class BidirectionalLayer(nn.Module):
    """Two layers, one from each end, their outputs side by side (Schuster & Paliwal 1997)."""

    hidden_size: int
    options: CellOptions = CellOptions()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_TBD: Array, valid_TB: Array | None, train: bool = False
    ) -> tuple[tuple, Array]:
        """Returns ((forward carry, backward carry), outputs (T, B, 2 * hidden_size))."""
        outputs, carries = [], []
        for name, reverse in (("forward", False), ("backward", True)):
            layer = RecurrentLayer(self.hidden_size, self.options, reverse, self.dtype, name=name)
            carry, y_TBH = layer(x_TBD, valid_TB, train)
            carries.append(carry)
            outputs.append(y_TBH)
        return tuple(carries), jnp.concatenate(outputs, axis=-1)


class RecurrentStack(nn.Module):
    """Layers on top of each other, with dropout between them (Zaremba et al. 2014).

    residual: each layer above the first adds its outputs to its inputs (Wu et al. 2016).
    remat: of each layer; see models/remat.py.
    """

    hidden_size: int
    num_layers: int
    options: CellOptions = CellOptions()
    residual: bool = False
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32
    remat: Remat = False

    def setup(self) -> None:
        layer = rematerialised(RecurrentLayer, self.remat, (3,))
        self.layers = [
            layer(self.hidden_size, self.options, dtype=self.dtype) for _ in range(self.num_layers)
        ]
        self.dropout = Dropout(self.dropout_rate)

    def __call__(
        self,
        x_TBD: Array,
        train: bool,
        resets_TB: Array | None = None,
        carries: list[Carry] | None = None,
        valid_TB: Array | None = None,
    ) -> tuple[list[Carry], Array]:
        """Whole sequence; returns the last carries and outputs (T, B, hidden_size)."""
        carries, ends = carries or [None] * self.num_layers, []
        for i, layer in enumerate(self.layers):
            below_TBD = self.dropout(x_TBD, train) if i else x_TBD
            end, x_TBD = layer(below_TBD, valid_TB, train, resets_TB, carries[i])
            x_TBD = x_TBD + below_TBD if self.residual and i else x_TBD
            ends.append(end)
        return ends, x_TBD

    def step(self, carries: list[Carry], x_BD: Array) -> tuple[list[Carry], Array]:
        """One time step of all layers."""
        new = []
        for i, (layer, carry) in enumerate(zip(self.layers, carries, strict=True)):
            carry, h_BH = layer.step(carry, x_BD)
            x_BD = h_BH + x_BD if self.residual and i else h_BH
            new.append(carry)
        return new, x_BD
