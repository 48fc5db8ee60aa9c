"""A network that reads a list of sentences in several hops before it answers."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.attention import BareAttention
from models.base import EncoderDecoder
from models.layers import DTYPES, OutputLayer, logits
from models.masks import positions_in_segment
from registry import ConfigError, NonNegativeInt, PositiveInt

Array = jax.Array
Arrays = dict[str, Any]


class Table(nn.Module):
    """A table of vectors that begin small, so that the first weights are nearly equal."""

    num_rows: int
    size: int
    axis: str
    dtype: Any

    def setup(self) -> None:
        init = nn.with_logical_partitioning(nn.initializers.normal(0.1), (self.axis, "embed"))
        self.embedding = self.param("embedding", init, (self.num_rows, self.size), jnp.float32)

    def __call__(self, rows: Array) -> Array:
        return jnp.take(self.embedding, rows, axis=0, mode="clip").astype(self.dtype)


class MemoryNetwork(EncoderDecoder):
    """End-to-end memory network (Sukhbaatar et al. 2015) with adjacent tying.

      m_i = sum_j l_j A x_ij + T(i)       c_i = the same with the next hop's A and T
      p = softmax(u m)     o = sum_i p_i c_i     u' = u + o     answer = softmax(W u')

    The source is sentences that end with `separator`; what follows the last one is the
    question, whose u has the first hop's A (B = A^1). T counts sentences from the last one
    backwards, l is the position encoding. The tables of num_hops hops are num_hops + 1: the
    c of a hop are the m of the next one, and W is the last.

    An answer may have several words, as a target of any other seq2seq: u has the sum of the
    words so far beside the question. For the first word that is the paper's model, with
    the embedding of BOS as a bias of u. Each hop sows its weights over sentences, the latest
    first, (B, 1, T, max_sentences).

    Attributes:
        max_sentences: the latest ones are read, older ones are not.
        separator: id of the word that ends a sentence; tokenizers that count words give 4
            to the most frequent one.
        position_encoding: False makes a sentence the sum of its words, in any order.
        tie_embeddings: False gives W a matrix of its own.
        linear: p = u m in all hops, without the softmax: how a training may begin that else
            comes to a poor minimum ("linear start", section 4.2).
    """

    vocab_size: PositiveInt
    embedding_size: PositiveInt = 32
    num_hops: PositiveInt = 3
    max_sentences: PositiveInt = 20
    separator: NonNegativeInt = 4
    position_encoding: bool = True
    tie_embeddings: bool = True
    linear: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"

    def setup(self) -> None:
        if self.separator >= self.vocab_size:
            raise ConfigError(
                f"config.model.separator must be an id below {self.vocab_size}, the size of the "
                f"vocabulary, got {self.separator}."
            )
        size, dtype = self.embedding_size, DTYPES[self.dtype]
        self.embed = Table(self.vocab_size, size, "vocab", dtype)
        hops = range(self.num_hops)
        self.words = [Table(self.vocab_size, size, "vocab", dtype) for _ in hops]
        self.times = [
            Table(self.max_sentences, size, "length", dtype) for _ in range(len(hops) + 1)
        ]
        self.hops = [BareAttention(self.linear) for _ in hops]
        if not self.tie_embeddings:
            self.output = OutputLayer(self.vocab_size, size)

    def encode(self, source_BS: Array, train: bool = False) -> Arrays:
        """Reads the source (0 is padding).

        Returns {"sentences": num_hops + 1 arrays (B, max_sentences, embedding_size), the
        latest sentence first, "question": (B, embedding_size), "segments": 1 where there is
        a sentence (B, max_sentences)}.
        """
        ends_BS, valid_BS = source_BS == self.separator, source_BS != 0
        counted_BS = jnp.cumsum(ends_BS, axis=1)
        total_B1 = counted_BS[:, -1:]
        sentence_BS = counted_BS - ends_BS  # its number, from 0; the question's is the total
        words_BS = valid_BS & ~ends_BS
        age_BS = jnp.where(words_BS, total_B1 - 1 - sentence_BS, self.max_sentences)
        slot_BSN = jax.nn.one_hot(age_BS, self.max_sentences, dtype=DTYPES[self.dtype])
        asked_BS = words_BS & (sentence_BS == total_B1)
        code_BSD = self._position_code(sentence_BS, words_BS)
        slots_N = jnp.arange(self.max_sentences)
        segments_BN = (slots_N < total_B1).astype(jnp.int32)
        sentences = []
        for words, times in zip((self.embed, *self.words), self.times, strict=True):
            # Whatever stands in the padding must not reach a sum, not even as 0 * NaN.
            x_BSD = jnp.where(valid_BS[:, :, None], words(source_BS), 0) * code_BSD
            if not sentences:
                question_BD = jnp.where(asked_BS[:, :, None], x_BSD, 0).sum(1)
            sentences.append(jnp.einsum("bsn,bsd->bnd", slot_BSN, x_BSD) + times(slots_N))
        return {"sentences": sentences, "question": question_BD, "segments": segments_BN}

    def _position_code(self, sentence_BS: Array, words_BS: Array) -> Array:
        """l_kj = (1 - j/J) - (k/d) (1 - 2 j/J) of word j of J (Sukhbaatar et al. 2015, 4.1)."""
        dtype, size = DTYPES[self.dtype], self.embedding_size
        if not self.position_encoding:
            return jnp.ones((*words_BS.shape, size), dtype)
        same_BSS = (sentence_BS[:, :, None] == sentence_BS[:, None]) & words_BS[:, None]
        length_BS = jnp.maximum(same_BSS.sum(-1), 1)
        share_BS1 = ((positions_in_segment(sentence_BS) + 1) / length_BS)[:, :, None]
        part_D = jnp.arange(1, size + 1) / size
        return ((1 - share_BS1) - part_D * (1 - 2 * share_BS1)).astype(dtype)

    def _read(self, memory: Arrays, said_RTD: Array) -> Array:
        """All hops, from the sum of what has been said at each place to features."""
        rows_each = said_RTD.shape[0] // memory["question"].shape[0]
        u_RTD = said_RTD + jnp.repeat(memory["question"], rows_each, axis=0)[:, None]
        sentences = memory["sentences"]
        for hop, m_BND, c_BND in zip(self.hops, sentences[:-1], sentences[1:], strict=True):
            u_RTD = u_RTD + hop(u_RTD, m_BND, c_BND, memory["segments"])
        return u_RTD

    def _decode_features(self, encoded: Arrays, inputs_BT: Array, train: bool) -> Array:
        return self._read(encoded, jnp.cumsum(self.embed(inputs_BT), axis=1))

    def output_layer(self) -> Array:
        """The matrix kernel_VD that turns features into logits: the last hop's c."""
        return self.words[-1].embedding if self.tie_embeddings else self.output()

    def init_carry(self, encoded: Arrays, max_len: int, num_beams: int = 1) -> dict[str, Any]:
        """Nothing said yet; neither max_len nor num_beams matters."""
        return {"state": {"said": jnp.zeros_like(encoded["question"])}, "memory": encoded}

    def step(self, carry: dict[str, Any], token_R: Array) -> tuple[dict[str, Any], Array]:
        """Reads one target token a hypothesis; returns the new carry and logits_RV."""
        said_RD, memory = carry["state"]["said"] + self.embed(token_R), carry["memory"]
        u_RD = self._read(memory, said_RD[:, None])[:, 0]
        return {"state": {"said": said_RD}, "memory": memory}, logits(u_RD, self.output_layer())
