"""A recurrent decoder that looks back at the source before each step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import Dense
from models.recurrent.cells import CELLS, Linear
from models.recurrent.scan import hoisted_scan

Array = jax.Array
Carry = Any


def additive_attention(
    query_BA: Array, keys_BSA: Array, v_A: Array, values_BSD: Array, valid_BS: Array
) -> tuple[Array, Array]:
    """softmax(v^T tanh(W s + U h)) h (Bahdanau et al. 2015, appendix A.1.2).

    Args:
        query_BA: W s of the decoder's state.
        keys_BSA: U h of the encoder's states, computed once for all steps.
        v_A: the vector that turns a hidden layer into a score.
        values_BSD: the encoder's states.
        valid_BS: above 0 where the source has a token.

    Returns:
        (context_BD, weights_BS). A source without tokens gets a context of zeros.
    """
    scores_BS = jnp.tanh(keys_BSA + query_BA[:, None]) @ v_A
    weights_BS = jax.nn.softmax(scores_BS.astype(jnp.float32), axis=-1, where=valid_BS > 0)
    weights_BS = weights_BS.astype(values_BSD.dtype)
    return jnp.einsum("bs,bsd->bd", weights_BS, values_BSD), weights_BS


def _attending_step(advance: Any) -> Any:
    """One step of Bahdanau's decoder: look with the last state, then feed the context in."""

    def step(linear: Linear, shared: dict, carry: Carry, gates: Array) -> tuple[Carry, tuple]:
        query_BA = linear("query", carry[-1])
        context_BD, weights_BS = additive_attention(
            query_BA, shared["keys"], shared["v"], shared["values"], shared["valid"]
        )
        context_BD = context_BD * shared["head_mask"]
        carry = advance(linear, carry, gates, jnp.concatenate([carry[-1], context_BD], axis=-1))
        return carry, (carry[-1], context_BD, weights_BS)

    return step


STEPS = {name: _attending_step(cell.advance) for name, cell in CELLS.items()}


class AttentionDecoder(nn.Module):
    """A recurrent layer whose cell reads [x_t; c_t], c_t by additive attention from s_{t-1}.

    The alignment is one head: its weights are sown as (B, 1, T, S) under 'intermediates',
    and the variable head_mask_H (H = 1) of collection 'ablation' scales the context.
    """

    hidden_size: int
    values_size: int
    cell: str = "lstm"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        hidden = self.hidden_size
        self.unit = CELLS[self.cell](hidden, hidden + self.values_size, dtype=self.dtype)
        self.key = Dense((hidden,), ("embed", "hidden"), dtype=self.dtype)
        named = nn.with_logical_partitioning
        xavier = nn.initializers.xavier_uniform()
        self.query = self.param("query", named(xavier, ("hidden", "mlp")), (hidden, hidden))
        self.v = self.param("v", named(nn.initializers.normal(hidden**-0.5), ("mlp",)), (hidden,))

    def memory(self, values_BSD: Array, valid_BS: Array) -> dict[str, Array]:
        """What every step reads of the source; batch first."""
        return {
            "keys": self.key(values_BSD),
            "values": values_BSD,
            "valid": valid_BS.astype(self.dtype),
        }

    def _shared(self, memory: dict[str, Array]) -> dict[str, Array]:
        mask_H = jnp.ones(1, self.dtype)
        if self.has_variable("ablation", "head_mask"):
            mask_H = self.get_variable("ablation", "head_mask").astype(self.dtype)
        return {**memory, "v": self.v.astype(self.dtype), "head_mask": mask_H}

    def _weights(self) -> dict[str, Array]:
        return {**self.unit.weights(), "query": self.query.astype(self.dtype)}

    def __call__(self, x_TBE: Array, memory: dict, carry: Carry) -> tuple[Carry, Array, Array]:
        """Whole target; returns (carry, states (T, B, hidden_size), contexts (T, B, D))."""
        carry, (h_TBH, context_TBD, weights_TBS) = hoisted_scan(
            STEPS[self.cell],
            False,
            self._weights(),
            self._shared(memory),
            carry,
            self.unit.inputs(x_TBE),
        )
        if self.is_mutable_collection("intermediates"):
            self.sow("intermediates", "weights", weights_TBS.transpose(1, 0, 2)[:, None])
        return carry, h_TBH, context_TBD

    def step(self, carry: Carry, x_RE: Array, memory: dict) -> tuple[Carry, Array, Array]:
        """One target token with the same parameters, for R / B hypotheses of each row."""
        weights, gates_RG = self._weights(), self.unit.inputs(x_RE)
        batch_size = memory["keys"].shape[0]

        def advance(carry: Carry, gates_BG: Array) -> tuple[Carry, tuple]:
            shared = self._shared(memory)
            return STEPS[self.cell](lambda name, h: h @ weights[name], shared, carry, gates_BG)

        by_row = jax.tree.map(lambda x: x.reshape(batch_size, -1, x.shape[-1]), (carry, gates_RG))
        found = jax.vmap(advance, in_axes=1, out_axes=1)(*by_row)
        carry, (h_RH, context_RD, _) = jax.tree.map(
            lambda x: x.reshape(x_RE.shape[0], *x.shape[2:]), found
        )
        return carry, h_RH, context_RD
