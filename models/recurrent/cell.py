"""What all recurrent cells have: W and b for all gates, U for all gates, vectors for options.

A cell is a Linen module that owns the parameters. `inputs` is what does not depend on the
state, one product for all time steps; `update` is the rest of the step, a pure function
whose products go through `linear(name, h)` so that `hoisted_scan` can keep them.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import Dense, keep_mask, layer_norm
from models.recurrent.options import CellOptions
from trees import constrain

Array = jax.Array
Linear = Callable[[str, Array], Array]
Carry = tuple[Array, ...]

INITIALIZERS = {
    "orthogonal": nn.initializers.orthogonal(),  # Saxe et al. 2014
    "xavier_uniform": nn.initializers.xavier_uniform(),
}
ZEROS, ONES = nn.initializers.zeros, nn.initializers.ones


class Cell(nn.Module):
    """What all cells have: W and b for all gates, U for all gates, vectors for the options.

    A carry is a tuple of (B, hidden_size) arrays, the last of which is the output h.

    Attributes:
        state_features: width of what multiplies U: hidden_size, or more where a context
            is fed in beside h.
    """

    hidden_size: int
    options: CellOptions = CellOptions()
    state_features: int | None = None
    dtype: Any = jnp.float32

    num_gates = 1
    num_states = 1

    def setup(self) -> None:
        gates = self.num_gates * self.hidden_size
        # With layer norm the bias is added after it.
        self.input = Dense(
            (gates,),
            ("embed", "gates"),
            use_bias=not self.options.layer_norm,
            bias_init=self._bias_init,
            dtype=self.dtype,
        )
        self.recurrent = self.param(
            "recurrent",
            nn.with_logical_partitioning(self._blocks_init, ("state", "gates")),
            (self.state_features or self.hidden_size, gates),
            jnp.float32,
        )
        self.vectors = {
            name: self.param(name, nn.with_logical_partitioning(init, ("gates",)), (size,))
            for name, (init, size) in self._vectors().items()
        }

    def _vectors(self) -> dict[str, tuple[Any, int]]:
        """First values and lengths of the options' vectors, by name."""
        if not self.options.layer_norm:
            return {}
        gates = self.num_gates * self.hidden_size
        names = {"input_scale": ONES, "input_bias": self._bias_init, "state_scale": ONES}
        return {name: (init, gates) for name, init in names.items()}

    def _bias_init(self, key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.zeros(shape, dtype)

    def _blocks_init(self, key: Array, shape: tuple[int, int], dtype: Any) -> Array:
        """A matrix of its own for each gate, side by side."""
        block, keys = (
            INITIALIZERS[self.options.recurrent_init],
            jax.random.split(key, self.num_gates),
        )
        blocks = [block(k, (shape[0], self.hidden_size), dtype) for k in keys]
        return jnp.concatenate(blocks, axis=1)

    def noise(self, x_TBD: Array, train: bool) -> tuple[Array, dict, dict]:
        """Draws what is random in a sequence.

        Returns:
            (inputs after variational dropout, masks of each step, masks of all steps);
            `advance` wants the masks of each step in its x and the others in its shared.
        """
        each, every = dict[str, Array](), dict[str, Array]()
        length, batch_size, _ = x_TBD.shape
        if train and (rate := self.options.variational_dropout_rate):
            shapes = x_TBD.shape[1:], (batch_size, self.recurrent.shape[0])
            masks = [keep_mask(self.make_rng("dropout"), rate, shape) for shape in shapes]
            x_BD, every["fed_mask"] = (mask.astype(self.dtype) / (1 - rate) for mask in masks)
            x_TBD = x_TBD * x_BD
        if train and (rate := self.options.zoneout_rate):
            shape = (length, batch_size, self.num_states * self.hidden_size)
            each["renew"] = keep_mask(self.make_rng("dropout"), rate, shape).astype(self.dtype)
        return x_TBD, each, every

    def inputs(self, x: Array) -> Array:
        """W x + b for all gates, over any leading axes."""
        gates = self.input(x)
        if "input_scale" in self.vectors:
            gates = self.norm(gates, self.vectors["input_scale"], self.vectors["input_bias"])
        return gates

    def weights(self) -> dict[str, Array]:
        """The matrices that `update` multiplies with."""
        return {"recurrent": constrain(self.recurrent.astype(self.dtype), None, "gates")}

    def shared(self) -> dict[str, Array]:
        """The vectors that `update` reads."""
        mine = {name: v for name, v in self.vectors.items() if not name.startswith("input_")}
        return {name: vector.astype(self.dtype) for name, vector in mine.items()}

    @staticmethod
    def start(h_BH: Array) -> Carry:
        """The carry whose output is h, and which remembers nothing else."""
        return (h_BH,)

    def zeros(self, batch_size: int) -> Carry:
        """The carry before the first step."""
        return self.start(jnp.zeros((batch_size, self.hidden_size), self.dtype))

    @staticmethod
    def norm(gates: Array, scale: Array, bias: Any = 0) -> Array:
        """Layer norm of what enters the gates, over all of them together."""
        return layer_norm(gates, scale, bias).astype(gates.dtype)

    @staticmethod
    def update(
        options: CellOptions, linear: Linear, shared: dict, carry: Carry, gates: Array, fed: Array
    ) -> Carry:
        """One step from the hoisted gates and what is fed to U; returns the new carry."""
        raise NotImplementedError


def sigmoid(x: Array) -> Array:
    """The logistic function by tanh, for which XLA's CPU backend has a fast approximation."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
