"""The recurrent language model of the table."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import masks
from models.base import LanguageModel
from models.layers import DTYPES
from models.recurrent.base import Recurrent
from models.recurrent.cells import CELLS
from registry import PositiveInt

Array = jax.Array


class RecurrentLM(LanguageModel, Recurrent):
    """Recurrent language model (Mikolov et al. 2010; with LSTM, Zaremba et al. 2014)."""

    num_layers: PositiveInt = 2

    def setup(self) -> None:
        self._setup_embeddings()
        self.stack = self._stack(self.num_layers)

    def features(
        self, tokens_BT: Array, segments_BT: Array | None = None, train: bool = False
    ) -> Array:
        """What the output layer sees, (B, T, embedding_size); the state is cleared
        where a packed row begins a new segment."""
        return self.features_from(None, tokens_BT, segments_BT, train)[1]

    def features_from(
        self,
        carry: dict[str, Any] | None,
        tokens_BT: Array,
        segments_BT: Array | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], Array]:
        """The same from a carry, which segment 1 of a row goes on with; any other begins anew.

        Returns:
            (carry after the last token, features (B, T, embedding_size)).
        """
        x_TBE, resets_TB = self._embed(tokens_BT, train), None
        if segments_BT is not None:
            x_TBE = jnp.where((segments_BT.T != 0)[:, :, None], x_TBE, 0)
            resets_TB = masks.starts(segments_BT).T
            if carry is not None:
                resets_TB = resets_TB.at[0].set(segments_BT[:, 0] != 1)
        before = None if carry is None else carry["state"]["layers"]
        layers, h_TBH = self.stack(x_TBE, train, resets_TB, before)
        features_BTE = self._read([h_TBH], train).transpose(1, 0, 2)
        return {"state": {"layers": layers}, "memory": {}}, features_BTE

    @nn.nowrap
    def init_carry(self, batch_size: int, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """Zero states; neither max_len nor num_beams matters to a recurrence."""
        zeros_BH = jnp.zeros((batch_size, self.hidden_size), DTYPES[self.dtype])
        carry = CELLS[self.cell].start(zeros_BH)
        return {"state": {"layers": [carry] * self.num_layers}, "memory": {}}

    def step(self, carry: dict[str, Any], token_B: Array) -> tuple[dict[str, Any], Array]:
        """Reads one token a row; returns the new carry and logits_BV."""
        layers, h_BH = self.stack.step(carry["state"]["layers"], self.embed(token_B))
        carry = {"state": {"layers": layers}, "memory": {}}
        return carry, self._logits(self._read([h_BH]))

    def prefill(
        self, carry: dict[str, Any], tokens_BT: Array, lengths_B: Array
    ) -> tuple[dict[str, Any], Array]:
        """Reads the first tokens of each row, at least one, in one scan.

        Returns:
            (the carry that so many steps would leave, logits_BV after the last of them).
        """
        valid_TB = jnp.arange(tokens_BT.shape[1])[:, None] < lengths_B
        # Whatever stands in the padding must not reach a sum, not even as 0 * NaN.
        x_TBE = jnp.where(valid_TB[:, :, None], self._embed(tokens_BT, False), 0)
        before = carry["state"]["layers"]
        layers, h_TBH = self.stack(x_TBE, False, None, before, valid_TB)
        h_BH = h_TBH[lengths_B - 1, jnp.arange(len(lengths_B))]
        carry = {"state": {"layers": layers}, "memory": {}}
        return carry, self._logits(self._read([h_BH]))
