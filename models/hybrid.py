"""Between RNN and Transformer: an encoder-decoder whose halves are chosen one by one."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.positions import PositionOptions
from models.layers import Dropout
from models.masks import Mask, cross_mask
from models.recurrent.cells import CELLS
from models.recurrent.layer import BidirectionalLayer, RecurrentLayer
from models.recurrent.options import CellOptions
from models.transformer.block import (
    Block,
    BlockOptions,
    Context,
    FeedForward,
    KeysValues,
    from_cache,
)
from models.transformer.models import TransformerSeq2Seq
from models.transformer.stack import Entrance
from registry import ConfigError

Array = jax.Array
Carry = Any


def unchanged(x_BTD: Array) -> Array:
    """Where a layer norm would stand."""
    return x_BTD


class RecurrentBlock(Block):
    """The block of a Transformer with a recurrent layer in the place of self-attention.

      x' = x + dropout(f(norm(x))) for f = recurrence, attention to the source, feed-forward

    Attributes:
        cell: of the recurrence.
        bidirectional: reads from both ends, half of the features each: for encoders.
        norm: whether there are norms; has_feed_forward: whether there is that sub-layer.
    """

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    bidirectional: bool = False
    norm: bool = True
    has_feed_forward: bool = True

    def setup(self) -> None:
        options, cell = self.options, CellOptions(cell=self.cell)

        def make_norm() -> Any:
            return options.make_norm() if self.norm else unchanged

        if self.bidirectional:
            self.recurrence = BidirectionalLayer(options.d_model // 2, cell, options.dtype)
        else:
            self.recurrence = RecurrentLayer(options.d_model, cell, dtype=options.dtype)
        self.self_norm = make_norm()
        if self.cross:
            self.cross_attention = options.make_attention(options.num_heads)
            self.cross_norm = make_norm()
        if self.has_feed_forward:
            self.feed_forward = FeedForward(options)
            self.feed_forward_norm = make_norm()
        self.dropout = Dropout(options.dropout_rate)

    def __call__(self, x_BTD: Array, context: Context, train: bool) -> Array:
        """The whole sequence at once; padding holds the state of the last token."""
        valid_TB = (context.mask.query_segments_BT != 0).T if self.bidirectional else None

        def read(y_BTD: Array) -> Array:
            _, h_TBD = self.recurrence(y_BTD.transpose(1, 0, 2), valid_TB, train)
            return h_TBD.transpose(1, 0, 2)

        x_BTD = self._residual(x_BTD, read, self.self_norm, train)
        memory = self.cross_attention.keys_values(context.encoded_BSD) if self.cross else None
        return self._after_self(x_BTD, memory, context.cross_mask, train)

    def _after_self(
        self, x_BTD: Array, memory: KeysValues | None, cross_mask: Mask | None, train: bool
    ) -> Array:
        if self.has_feed_forward:
            return super()._after_self(x_BTD, memory, cross_mask, train)
        return self._across(x_BTD, memory, cross_mask, train)

    def advance(
        self, carry: Carry, x_RD: Array, memory: KeysValues | tuple, cross_mask: Mask
    ) -> tuple[Carry, Array]:
        """One more token for each of R = B * T hypotheses, those of one row side by side."""
        after: Carry = carry

        def read(y_RD: Array) -> Array:
            nonlocal after
            after, h_RD = self.recurrence.step(carry, y_RD)
            return h_RD

        x_RD = x_RD + read(self.self_norm(x_RD))
        batch_size, beams = cross_mask.query_segments_BT.shape
        x_BTD = x_RD.reshape(batch_size, beams, -1)
        kept = from_cache(memory) if self.cross else None
        return after, self._after_self(x_BTD, kept, cross_mask, False).reshape(x_RD.shape)


class RecurrentBlocks(Entrance):
    """A stack of RecurrentBlock; `attends` says which of them look at the source."""

    attends: tuple[bool, ...]
    cell: Literal["lstm", "gru", "rnn"]
    bidirectional: bool
    norm: bool
    feed_forward: bool

    def setup(self) -> None:
        self._setup_entrance(causal=not self.bidirectional)
        shared = (self.cell, self.bidirectional, self.norm, self.feed_forward)
        self.layers = [RecurrentBlock(self.options, (), cross, *shared) for cross in self.attends]
        self.last_norm = self.options.make_norm() if self.norm else unchanged

    def __call__(self, x_BTD: Array, context: Context, train: bool) -> Array:
        """Runs all layers over the whole sequence."""
        for layer in self.layers:
            x_BTD = layer(x_BTD, context, train)
        return self.last_norm(x_BTD)

    def memory(self, encoded_BSD: Array) -> list[KeysValues | tuple]:
        """Keys and values of the encoder's output for each layer that looks at it."""
        return [layer.memory(encoded_BSD) if layer.cross else () for layer in self.layers]

    @nn.nowrap
    def init_carries(self, num_rows: int) -> list[Carry]:
        """Zero states."""
        zeros_RD = jnp.zeros((num_rows, self.options.d_model), self.options.dtype)
        return [CELLS[self.cell].start(zeros_RD) for _ in self.attends]

    def step(
        self, carries: list[Carry], x_RD: Array, memory: list, cross_mask: Mask
    ) -> tuple[list[Carry], Array]:
        """One more token of every hypothesis through all layers."""
        new = []
        for layer, carry, kept in zip(self.layers, carries, memory, strict=True):
            carry, x_RD = layer.advance(carry, x_RD, kept, cross_mask)
            new.append(carry)
        return new, self.last_norm(x_RD)


class HybridSeq2Seq(TransformerSeq2Seq):
    """An RNN that borrows parts of the Transformer one at a time, up to all of it (Domhan 2018).

    With self-attention in both halves it is TransformerSeq2Seq, parameter for parameter. The
    recurrent decoder begins with zeros and sees the source through attention alone.

    Attributes:
        encoder_layers, decoder_layers: what stands in the place of self-attention, or that.
        cell: of recurrent layers.
        cross_attention: which layers of a recurrent decoder look at the source.
        positions: whether sinusoids are added to the embeddings.
        norm, feed_forward: whether recurrent layers have layer norm, and a residual
            feed-forward sub-layer. Layers with self-attention have both.
    """

    encoder_layers: Literal["recurrent", "self_attention"] = "recurrent"
    decoder_layers: Literal["recurrent", "self_attention"] = "recurrent"
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    cross_attention: Literal["last", "all"] = "all"
    positions: bool = True  # type: ignore[assignment]
    norm: bool = True  # type: ignore[assignment]
    feed_forward: bool = True

    def setup(self) -> None:
        self._check_halves()
        self._check()
        self._setup_embeddings()
        encoder_heads, *decoder_heads = self._heads()
        encoder_layers, layers = self.num_encoder_layers, self.num_decoder_layers
        if self.encoder_layers == "recurrent":
            self.encoder = self._blocks((False,) * encoder_layers, bidirectional=True)
        else:
            self.encoder = self._stack(encoder_heads, causal=False)
        if self.decoder_layers == "recurrent":
            everywhere = self.cross_attention == "all"
            attends = (everywhere,) * (layers - 1) + (True,)
            self.decoder = self._blocks(attends, bidirectional=False)
        else:
            self.decoder = self._stack(*decoder_heads, causal=True)

    def _check_halves(self) -> None:
        halves = (self.encoder_layers, self.decoder_layers)
        if not self.positions and "self_attention" in halves:
            raise ConfigError(
                "config.model.positions=false needs recurrent encoder_layers and decoder_layers: "
                "self-attention cannot tell places apart."
            )
        if "recurrent" in halves:
            for name, only in (
                ("layer_norm", "pre"),
                ("remat", False),
                ("scan_layers", False),
                ("heads_kept", ()),
            ):
                if getattr(self, name) != only:
                    raise ConfigError(
                        f"config.model.{name} must be {only!r} where layers are recurrent, got "
                        f"{getattr(self, name)!r}."
                    )

    def _blocks(self, attends: tuple[bool, ...], bidirectional: bool) -> RecurrentBlocks:
        return RecurrentBlocks(
            self._options(), attends, self.cell, bidirectional, self.norm, self.feed_forward
        )

    @nn.nowrap
    def _options(self) -> BlockOptions:
        positions = PositionOptions("sinusoidal" if self.positions else "none")
        return dataclasses.replace(super()._options(), norm="layer_norm", positions=positions)

    def init_carry(self, encoded: dict, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """As of the Transformer; a recurrent decoder has its states instead of caches."""
        if self.decoder_layers == "self_attention":
            return super().init_carry(encoded, max_len, num_beams)
        batch_size = encoded["x"].shape[0]
        carry = self._init_carry((), batch_size, max_len, 1)
        carry["state"]["layers"] = self.decoder.init_carries(batch_size)
        memory = {"layers": self.decoder.memory(encoded["x"]), "segments": encoded["segments"]}
        return {"state": carry["state"], "memory": memory}

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a hypothesis; returns the new carry and logits_RV."""
        if self.decoder_layers == "self_attention":
            return self._step(carry, token_R)
        state, memory = carry["state"], carry["memory"]
        decoder: Any = self.decoder
        x_RD = decoder.enter(self.embed(token_R), state["position"], state["past"].shape[1])
        segments_BS = memory["segments"]
        mask = cross_mask(segments_BS, token_R.shape[0] // segments_BS.shape[0])
        layers, x_RD = decoder.step(state["layers"], x_RD, memory["layers"], mask)
        state = {**state, "position": state["position"] + 1, "layers": layers}
        return {"state": state, "memory": memory}, self._logits(self._finish(x_RD))
