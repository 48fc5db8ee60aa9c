"""Layers that run a cell over a sequence: padding, resets, both directions, stacks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import Dropout
from models.recurrent.cells import CELLS, Linear
from models.recurrent.scan import hoisted_scan

Array = jax.Array
Carry = Any


def _masked_step(advance: Any) -> Any:
    """A step for hoisted_scan that holds the state at padding and clears it at a reset."""

    def step(linear: Linear, shared: None, carry: Carry, x: tuple) -> tuple[Carry, Array]:
        gates, valid_B1, keep_B1 = x
        carry = jax.tree.map(lambda leaf: jnp.where(keep_B1 > 0, leaf, 0), carry)
        new = advance(linear, carry, gates, carry[-1])
        new = jax.tree.map(lambda n, old: jnp.where(valid_B1 > 0, n, old), new, carry)
        return new, new[-1]

    return step


def _open_step(advance: Any) -> Any:
    """The same where nothing is padded and nothing is reset."""

    def step(linear: Linear, shared: None, carry: Carry, gates: Array) -> tuple[Carry, Array]:
        new = advance(linear, carry, gates, carry[-1])
        return new, new[-1]

    return step


# Made once: hoisted_scan compiles anew for each function object.
MASKED = {name: _masked_step(cell.advance) for name, cell in CELLS.items()}
OPEN = {name: _open_step(cell.advance) for name, cell in CELLS.items()}


class RecurrentLayer(nn.Module):
    """One cell over time, forwards or backwards.

    At padding the state stands still, so a padded row ends in the state of its last
    token, and a reverse layer starts at its last token.
    """

    hidden_size: int
    cell: str = "lstm"
    reverse: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.unit = CELLS[self.cell](self.hidden_size, dtype=self.dtype)

    def __call__(
        self,
        x_TBD: Array,
        valid_TB: Array | None = None,
        resets_TB: Array | None = None,
        carry: Carry = None,
    ) -> tuple[Carry, Array]:
        """Runs over the leading axis, time.

        Args:
            x_TBD: inputs.
            valid_TB: True at tokens, False at padding; None if there is none.
            resets_TB: True where a new segment begins and the state is cleared.
            carry: state before the first step; zeros if None.

        Returns:
            (carry after the last step, outputs (T, B, hidden_size)).
        """
        gates_TBG = self.unit.inputs(x_TBD)
        if carry is None:
            carry = self.unit.init_carry(x_TBD.shape[1], self.hidden_size, self.dtype)
        weights = self.unit.weights()
        if valid_TB is None and resets_TB is None:
            return hoisted_scan(OPEN[self.cell], self.reverse, weights, None, carry, gates_TBG)
        ones_TB = jnp.ones(x_TBD.shape[:2], self.dtype)
        valid_TB = ones_TB if valid_TB is None else valid_TB.astype(self.dtype)
        keep_TB = ones_TB if resets_TB is None else 1 - resets_TB.astype(self.dtype)
        xs = (gates_TBG, valid_TB[..., None], keep_TB[..., None])
        return hoisted_scan(MASKED[self.cell], self.reverse, weights, None, carry, xs)

    def step(self, carry: Carry, x_BD: Array) -> tuple[Carry, Array]:
        """One time step with the same parameters."""
        weights = self.unit.weights()
        gates_BG = self.unit.inputs(x_BD)
        new = self.unit.advance(lambda name, h: h @ weights[name], carry, gates_BG, carry[-1])
        return new, new[-1]


class BidirectionalLayer(nn.Module):
    """Two layers, one from each end, their outputs side by side (Schuster & Paliwal 1997)."""

    hidden_size: int
    cell: str = "lstm"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_TBD: Array, valid_TB: Array | None) -> tuple[tuple, Array]:
        """Returns ((forward carry, backward carry), outputs (T, B, 2 * hidden_size))."""
        outputs, carries = [], []
        for name, reverse in (("forward", False), ("backward", True)):
            layer = RecurrentLayer(self.hidden_size, self.cell, reverse, self.dtype, name=name)
            carry, y_TBH = layer(x_TBD, valid_TB)
            carries.append(carry)
            outputs.append(y_TBH)
        return tuple(carries), jnp.concatenate(outputs, axis=-1)


class RecurrentStack(nn.Module):
    """Layers on top of each other, with dropout between them (Zaremba et al. 2014)."""

    hidden_size: int
    num_layers: int
    cell: str = "lstm"
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.layers = [
            RecurrentLayer(self.hidden_size, self.cell, dtype=self.dtype)
            for _ in range(self.num_layers)
        ]
        self.dropout = Dropout(self.dropout_rate)

    def __call__(
        self,
        x_TBD: Array,
        train: bool,
        resets_TB: Array | None = None,
        carries: list[Carry] | None = None,
    ) -> tuple[list[Carry], Array]:
        """Whole sequence; returns the last carries and outputs (T, B, hidden_size)."""
        carries, ends = carries or [None] * self.num_layers, []
        for i, layer in enumerate(self.layers):
            x_TBD = self.dropout(x_TBD, train) if i else x_TBD
            end, x_TBD = layer(x_TBD, None, resets_TB, carries[i])
            ends.append(end)
        return ends, x_TBD

    def step(self, carries: list[Carry], x_BD: Array) -> tuple[list[Carry], Array]:
        """One time step of all layers."""
        new = []
        for layer, carry in zip(self.layers, carries, strict=True):
            carry, x_BD = layer.step(carry, x_BD)
            new.append(carry)
        return new, x_BD
