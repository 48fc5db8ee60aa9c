"""A recurrent decoder that looks at the source at every step, with any score."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.ablation import ablate, ablation_of, record
from models.attention.scores import Score, ScoreOptions
from models.attention.scores.base import matrix
from models.recurrent.cells import CELLS, Linear, advance_of
from models.recurrent.options import CellOptions
from models.recurrent.scan import hoisted_scan

Array = jax.Array
Carry = dict[str, Any]

NUM_AXES = {"head_mask": 1, "head_value": 2}  # of one place


@functools.cache  # made once: hoisted_scan compiles anew for each function object
def attending_step(options: CellOptions, score: Any, context_to: str, feeds: bool) -> Any:
    """step(linear, shared, carry, x) -> (carry, (outputs to read, weights_BHS)).

    `score` is a class of Score. The carry is {"cell": the cell's own, "score": the score's,
    "fed": the last attended state where it is fed back}.
    """
    advance = advance_of(options)

    def look(linear: Linear, shared: dict, state: dict, query_BQ: Array, x: dict) -> tuple:
        context_BHK, weights_BHS, state = score.attend(linear, shared, state, query_BQ)
        context_BHK = ablate(context_BHK, x)
        return context_BHK.reshape(query_BQ.shape[0], -1), weights_BHS, state

    def look_then_advance(linear: Linear, shared: dict, carry: Carry, x: dict) -> tuple:
        last_BQ = carry["cell"][-1]
        context_BD, weights_BHS, state = look(linear, shared, carry["score"], last_BQ, x)
        fed = jnp.concatenate([last_BQ, context_BD], axis=-1)
        cell = advance(linear, shared["cell"], carry["cell"], x, fed)
        return {"cell": cell, "score": state}, ((cell[-1], context_BD), weights_BHS)

    def advance_then_look(linear: Linear, shared: dict, carry: Carry, x: dict) -> tuple:
        fed = carry["cell"][-1]
        if feeds:
            fed = jnp.concatenate([fed, carry["fed"]], axis=-1)
        cell = advance(linear, shared["cell"], carry["cell"], x, fed)
        context_BD, weights_BHS, state = look(linear, shared, carry["score"], cell[-1], x)
        both = jnp.concatenate([context_BD, cell[-1]], axis=-1)
        attended_BQ = jnp.tanh(linear("combine", both))
        carry = {"cell": cell, "score": state} | ({"fed": attended_BQ} if feeds else {})
        return carry, ((attended_BQ,), weights_BHS)

    return look_then_advance if context_to == "cell" else advance_then_look


class AttentionDecoder(nn.Module):
    """A recurrent layer that reads x_t and a context c_t of the source.

      context_to="cell":   c_t from s_{t-1}, s_t = cell([x_t; c_t])       (Bahdanau et al. 2015)
      context_to="output": s_t = cell(x_t), c_t from s_t, h~_t = tanh(W [c_t; s_t]), and with
                           input_feeding s_t = cell([x_t; h~_{t-1}])      (Luong et al. 2015)

    The weights are sown as (B, H, T, S) under 'intermediates'. Contexts are what heads give
    (models/attention/ablation.py); scores have one head, but for multi_head.

    Attributes:
        score: the class of models.attention.scores.
        keys_size, values_size: widths of what memory() is given.
    """

    hidden_size: int
    keys_size: int
    values_size: int
    score: type[Score]
    score_options: ScoreOptions = ScoreOptions()
    context_to: str = "cell"
    input_feeding: bool = False
    options: CellOptions = CellOptions()
    dtype: Any = jnp.float32

    def setup(self) -> None:
        hidden = self.hidden_size
        widths = (hidden, self.keys_size, self.values_size)
        self.scorer = self.score(*widths, self.score_options, dtype=self.dtype, name="score")
        context = self.score.context_size(self.values_size, self.score_options)
        fed = context if self.context_to == "cell" else hidden * self.input_feeding
        self.unit = CELLS[self.options.cell](hidden, self.options, hidden + fed, self.dtype)
        if self.context_to == "output":
            shape = (context + hidden, hidden)
            self.combine = matrix(self, "combine", ("hidden", "mlp"), shape)

    @nn.nowrap
    def init_carry(self, cell_carry: Any, valid_BS: Array) -> Carry:
        """What the first step reads, given the state that the cell begins with."""
        carry = {"cell": cell_carry, "score": self.score.init_state(valid_BS, self.dtype)}
        if self.input_feeding:
            carry["fed"] = jnp.zeros_like(cell_carry[-1])
        return carry

    def memory(self, keys_BSD: Array, values_BSD: Array, valid_BS: Array) -> dict[str, Array]:
        """What every step reads of the source; batch first."""
        return self.scorer.memory(keys_BSD, values_BSD) | {"valid": valid_BS.astype(self.dtype)}

    def _shared(self, memory: dict[str, Array]) -> dict[str, Any]:
        return {**memory, **self.scorer.shared(), "cell": self.unit.shared()}

    def _weights(self) -> dict[str, Array]:
        weights = {**self.unit.weights(), **self.scorer.weights()}
        if self.context_to == "output":
            weights["combine"] = self.combine.astype(self.dtype)
        return weights

    @nn.nowrap
    def _step(self) -> Any:
        score: Any = self.score  # mypy takes a Linen class for not hashable
        return attending_step(self.options, score, self.context_to, self.input_feeding)

    def __call__(
        self, x_TBE: Array, memory: dict, carry: Carry, train: bool = False
    ) -> tuple[Carry, tuple[Array, ...], Array]:
        """Whole target.

        Returns:
            (carry, outputs, weights_BHTS): outputs are (s_TBH, c_TBD) or (h~_TBH,), the first
            of which goes on upwards.
        """
        x_TBE, each, every = self.unit.noise(x_TBE, train)
        shared, xs = self._shared(memory), {"gates": self.unit.inputs(x_TBE), **each}
        xs |= {
            name: over_time(array, x_TBE.shape[0], NUM_AXES[name]).astype(self.dtype)
            for name, array in ablation_of(self).items()
        }
        shared["cell"] |= every
        carry, (outputs, weights_TBHS) = hoisted_scan(
            self._step(), False, self._weights(), shared, carry, xs
        )
        weights_BHTS = weights_TBHS.transpose(1, 2, 0, 3)
        self.sow("intermediates", "weights", weights_BHTS)
        if self.is_mutable_collection("heads"):
            record(self, contexts(weights_TBHS, memory["values"]))
        if "head_mask" in xs:  # a pointer copies by the heads that are left
            weights_BHTS = weights_BHTS * xs["head_mask"].transpose(1, 2, 0)[..., None]
        return carry, outputs, weights_BHTS

    def step(
        self, carry: Carry, x_RE: Array, memory: dict
    ) -> tuple[Carry, tuple[Array, ...], Array]:
        """One target token with the same parameters, for K = R / B hypotheses of each row.

        The weights are those of the hypotheses side by side, (B, H, K, S).
        """
        weights, x = self._weights(), {"gates": self.unit.inputs(x_RE)}
        for name, array in ablation_of(self).items():
            x[name] = jnp.broadcast_to(array, (x_RE.shape[0], *array.shape)).astype(self.dtype)
        batch_size, shared, step = memory["valid"].shape[0], self._shared(memory), self._step()

        def advance(carry: Carry, x: dict) -> tuple:
            return step(lambda name, h: h @ weights[name], shared, carry, x)

        by_row = jax.tree.map(lambda x: x.reshape(batch_size, -1, *x.shape[1:]), (carry, x))
        carry, (outputs, weights_BKHS) = jax.vmap(advance, in_axes=1, out_axes=1)(*by_row)
        carry, outputs = jax.tree.map(lambda x: x.reshape(x_RE.shape[0], -1), (carry, outputs))
        if "head_mask" in by_row[1]:
            weights_BKHS = weights_BKHS * by_row[1]["head_mask"][..., None]
        return carry, outputs, weights_BKHS.transpose(0, 2, 1, 3)


def over_time(array: Array, length: int, num_axes: int) -> Array:
    """(T, B or 1, ...) from what is the same at all places or (B, T, ...)."""
    array = array[None, None] if array.ndim == num_axes else array
    return jnp.broadcast_to(array.swapaxes(0, 1), (length, array.shape[0], *array.shape[2:]))


def contexts(weights_TBHS: Array, values_BSD: Array) -> Array:
    """What each head gives, (B, T, H, K), from its weights."""
    values_BSHK = values_BSD.reshape(*values_BSD.shape[:2], weights_TBHS.shape[2], -1)
    return jnp.einsum("tbhs,bshk->bthk", weights_TBHS, values_BSHK)
