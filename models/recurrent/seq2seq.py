"""The recurrent encoder-decoder of the table."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention.scores import COVERED, SCORES, ScoreOptions
from models.base import EncoderDecoder
from models.convolutional.encoder import ConvolutionalEncoder
from models.layers import DTYPES, Dense, logits
from models.recurrent.base import Recurrent
from models.recurrent.cells import CELLS
from models.recurrent.decoder import AttentionDecoder
from models.recurrent.layer import BidirectionalLayer, RecurrentLayer
from models.recurrent.pointer import Pointer, coverage_loss
from models.remat import rematerialised
from registry import ConfigError, NonNegativeFloat, PositiveInt

Array = jax.Array


class RecurrentSeq2Seq(EncoderDecoder, Recurrent):
    """Recurrent encoder and decoder with one vocabulary for both sides.

    Attributes:
        encoder: reads the source from both ends, from its first word ("forward") or from
            its last ("reversed": the source turned round, Sutskever et al. 2014); or sees
            neighbours and places ("convolutional", Gehring et al. 2016).
        attention: "none": the decoder starts from the encoder's last state and sees nothing
            else of the source (Sutskever et al. 2014; Cho et al. 2014). Others look at it in
            every step; models/attention/scores has their formulas.
        context_to: what the context is given to: the "cell" of the first decoder layer, with
            the word (Bahdanau et al. 2015), or its "output", that of the last layer (Luong
            et al. 2015), which input_feeding gives back to that layer in the next step.
        coverage: the score reads what each position has had of attention so far (See et
            al. 2017).
        coverage_weight: lambda of the coverage loss (See et al. 2017, eq. 13), which training
            adds; its values per target place are sown under 'penalties'.
        copy: a pointer may copy words of the source (See et al. 2017; recurrent/pointer.py).
        num_heads: of multi_head.
        heads_kept: the number of them that is left, each as wide as before, alone in a tuple
            (as in a Transformer); empty: all.
        window_radius: of local_m and local_p.
        max_positions: source positions that location and a convolutional encoder tell apart.
        kernel_size: neighbours that a layer of a convolutional encoder sees.
    """

    num_encoder_layers: PositiveInt = 1
    num_decoder_layers: PositiveInt = 1
    encoder: Literal["bidirectional", "forward", "reversed", "convolutional"] = "bidirectional"
    attention: Literal[
        "none",
        "additive",
        "concat",
        "dot",
        "general",
        "local_m",
        "local_p",
        "location",
        "multi_head",
        "one_layer",
        "scaled_dot",
    ] = "additive"
    context_to: Literal["cell", "output"] = "cell"
    input_feeding: bool = False
    coverage: bool = False
    coverage_weight: NonNegativeFloat = 0.0
    copy: bool = False
    num_heads: PositiveInt = 1
    heads_kept: tuple[PositiveInt, ...] = ()
    window_radius: PositiveInt = 10
    max_positions: PositiveInt = 256
    kernel_size: PositiveInt = 3

    def _check(self) -> None:
        chosen = f"config.model.attention is {self.attention!r}, but"
        if self.num_heads > 1 and self.attention != "multi_head":
            raise ConfigError(f"{chosen} num_heads={self.num_heads} needs 'multi_head'.")
        if self.heads_kept and (len(self.heads_kept) > 1 or self.heads_kept[0] > self.num_heads):
            raise ConfigError(
                f"config.model.heads_kept must be one number of at most num_heads "
                f"({self.num_heads}), got {list(self.heads_kept)}."
            )
        if self.coverage and self.attention not in COVERED:
            raise ConfigError(f"{chosen} coverage needs one of: {', '.join(COVERED)}.")
        if self.attention == "none":
            for name, off in (("context_to", "cell"), ("copy", False), ("coverage_weight", 0.0)):
                if getattr(self, name) != off:
                    raise ConfigError(f"{chosen} {name}={getattr(self, name)!r} needs attention.")
        if self.input_feeding and self.context_to != "output":
            raise ConfigError(
                "config.model.input_feeding needs config.model.context_to='output': "
                "a cell that is given the context has it already."
            )

    def setup(self) -> None:
        self._check()
        self._setup_embeddings()
        dtype, hidden = DTYPES[self.dtype], self.hidden_size
        self._setup_encoder()
        self.bridge = Dense((self.num_decoder_layers * hidden,), ("hidden", "embed"), dtype=dtype)
        attends = self.attention != "none"
        if attends:
            width = 2 * hidden if self.encoder == "bidirectional" else hidden
            self.attention_decoder = rematerialised(AttentionDecoder, self.remat, (4,))(
                hidden,
                width,
                width,
                (COVERED if self.coverage else SCORES)[self.attention],
                ScoreOptions(
                    self.num_heads,
                    sum(self.heads_kept),
                    self.window_radius,
                    self.max_positions,
                ),
                self.context_to,
                self.input_feeding,
                self.cell_options(),
                dtype,
            )
        if self.num_decoder_layers > attends:
            self.decoder = self._stack(self.num_decoder_layers - attends)
        if self.copy:
            self.pointer = Pointer(dtype)

    def _setup_encoder(self) -> None:
        """What reads the source, under names of their own: `encoder` is the option."""
        dtype, fields, num_layers = DTYPES[self.dtype], {}, self.num_encoder_layers
        if self.encoder == "convolutional":
            self.convolutions = rematerialised(ConvolutionalEncoder, self.remat, (3,))(
                self.hidden_size,
                num_layers,
                self.kernel_size,
                self.max_positions,
                self.dropout_rate,
                dtype,
            )
            return
        layer = BidirectionalLayer if self.encoder == "bidirectional" else RecurrentLayer
        if layer is RecurrentLayer:
            fields = {"reverse": self.encoder == "reversed"}
        layer = rematerialised(layer, self.remat, (3,))
        options = self.cell_options()
        self.reader = [
            layer(self.hidden_size, options, **fields, dtype=dtype, name=f"encoder_{i}")
            for i in range(num_layers)
        ]

    def encode(self, source_BS: Array, train: bool = False) -> dict[str, Array]:
        """Reads the source (0 is padding).

        Returns {"x": states (B, S, D), "keys": what scores compare with (B, S, D), "segments":
        1 at tokens (B, S), "last": the last states (B, D), "source": source_BS}, where D is
        2 * hidden_size if both directions are read. Keys are the states, and the last state is
        the last, but for a convolutional encoder: it has keys of its own, and the mean of its
        states.
        """
        valid_SB = (source_BS != 0).T
        segments_BS = valid_SB.T.astype(jnp.int32)
        ids = {"segments": segments_BS, "source": source_BS}
        x_SBD = jnp.where(valid_SB[:, :, None], self._embed(source_BS, train), 0)
        if self.encoder == "convolutional":
            keys_BSD, x_BSD = self.convolutions(x_SBD.transpose(1, 0, 2), valid_SB.T, train)
            num_words_B1 = jnp.maximum(segments_BS.sum(1, keepdims=True), 1).astype(x_BSD.dtype)
            last_BD = x_BSD.sum(1) / num_words_B1
            return {"x": x_BSD, "keys": keys_BSD, "last": last_BD, **ids}
        for i, layer in enumerate(self.reader):
            below_SBD = self.dropout(x_SBD, train) if i else x_SBD
            ends, x_SBD = layer(below_SBD, valid_SB, train)
            x_SBD = x_SBD + below_SBD if self.residual and i else x_SBD
        x_BSD = jnp.where(valid_SB[:, :, None], x_SBD, 0).transpose(1, 0, 2)
        ends = ends if self.encoder == "bidirectional" else (ends,)
        last_BD = jnp.concatenate([end[-1] for end in ends], axis=-1)
        return {"x": x_BSD, "keys": x_BSD, "last": last_BD, **ids}

    def _start(self, encoded: dict) -> list:
        """The decoder's states before the first token: h = tanh(W last), the rest 0."""
        h_BX = jnp.tanh(self.bridge(encoded["last"]))
        states = jnp.split(h_BX, self.num_decoder_layers, axis=-1)
        carries: list = [CELLS[self.cell].start(h) for h in states]
        if self.attention != "none":
            i = self._attending_layer()
            carries[i] = self.attention_decoder.init_carry(carries[i], encoded["segments"])
        return carries

    @nn.nowrap
    def _attending_layer(self) -> int:
        return 0 if self.context_to == "cell" else -1

    def _memory(self, encoded: dict) -> dict[str, Array]:
        if self.attention == "none":
            return {}
        return self.attention_decoder.memory(encoded["keys"], encoded["x"], encoded["segments"])

    def _run(self, x: Array, carries: list, attend: Any, stack: Any) -> tuple:
        """All layers of the decoder in their order, whole or one step.

        Args:
            attend: (carry, x) -> (carry, outputs, weights) of the layer that looks at the source.
            stack: (carries, x) -> (carries, outputs) of the others.

        Returns:
            (new carries, what the readout reads, weights_BHTS of attention if there is one).
        """
        carries = list(carries)
        if self.attention == "none":
            carries, h = stack(carries, x)
            return carries, [h, x], None
        attending = carries.pop(self._attending_layer())
        if self.context_to == "cell":
            attending, (h, context), weights_BHTS = attend(attending, x)
            if carries:
                carries, h = stack(carries, h)
            return [attending, *carries], [h, x, context], weights_BHTS
        h = x
        if carries:
            carries, h = stack(carries, h)
        attending, (attended,), weights_BHTS = attend(attending, h)
        return [*carries, attending], [attended], weights_BHTS

    def _decode_features(self, encoded: dict, inputs_BT: Array, train: bool) -> Array:
        memory = self._memory(encoded)

        def attend(carry: Any, x_TBE: Array) -> tuple:
            return self.attention_decoder(x_TBE, memory, carry, train)

        def stack(carries: list, x_TBE: Array) -> tuple:
            return self.decoder(x_TBE, train, None, carries)

        x_TBE = self._embed(inputs_BT, train)
        _, parts, weights_BHTS = self._run(x_TBE, self._start(encoded), attend, stack)
        if self.coverage_weight:
            penalty_BT = self.coverage_weight * coverage_loss(weights_BHTS)
            self.sow("penalties", "coverage", penalty_BT)
        x_BTE = self._read(parts, train).transpose(1, 0, 2)
        if not self.copy:
            return x_BTE
        known_BTX = self._known(parts, x_TBE).transpose(1, 0, 2)
        return self._log_probs(x_BTE, known_BTX, weights_BHTS, encoded["source"])

    @nn.nowrap
    def _known(self, parts: list[Array], x: Array) -> Array:
        """What the pointer reads: s, y and c; where c meets s in h~, h~ and y."""
        return jnp.concatenate(parts if self.context_to == "cell" else [*parts, x], axis=-1)

    def _log_probs(
        self, x_BTE: Array, known_BTX: Array, weights_BHTS: Array, source_BS: Array
    ) -> Array:
        logits_BTV = logits(x_BTE, super().output_layer())
        return self.pointer(logits_BTV, known_BTX, weights_BHTS, source_BS)

    def output_layer(self) -> Array | None:
        """As in all models; None with a pointer, whose features are logits already."""
        return None if self.copy else super().output_layer()

    def init_carry(self, encoded: dict, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """The first states, and what attention reads of the source; the rest does not matter."""
        memory = {"attention": self._memory(encoded)}
        memory |= {"source": encoded["source"]} if self.copy else {}
        return {"state": {"layers": self._start(encoded)}, "memory": memory}

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a hypothesis; returns the new carry and logits_RV."""
        memory = carry["memory"]

        def attend(carry: Any, x_RE: Array) -> tuple:
            return self.attention_decoder.step(carry, x_RE, memory["attention"])

        x_RE = self.embed(token_R)
        layers, parts, weights_BHKS = self._run(
            x_RE, carry["state"]["layers"], attend, self._step_stack
        )
        carry, out_RE = {"state": {"layers": layers}, "memory": memory}, self._read(parts)
        if self.copy:  # the hypotheses of a row are like the places of a target
            source_BS, known_RX = memory["source"], self._known(parts, x_RE)
            out_BKE, known_BKX = (
                a.reshape(len(source_BS), -1, a.shape[-1]) for a in (out_RE, known_RX)
            )
            log_probs_BKV = self._log_probs(out_BKE, known_BKX, weights_BHKS, source_BS)
            return carry, log_probs_BKV.reshape(len(token_R), -1)
        return carry, logits(out_RE, self.output_layer())

    def _step_stack(self, carries: list, x_RE: Array) -> tuple:
        return self.decoder.step(carries, x_RE)
