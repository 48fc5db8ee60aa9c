"""The Transformers in PyTorch: encoder-decoder (Vaswani et al. 2017), GPT, BERT.

Written for speed: one product for queries, keys and values, the fused
`scaled_dot_product_attention`, the causal flag instead of a mask where the padding is on
the right. The module tree follows ours, so that weights can be copied (peers/weights.py).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

PAD = 0
EPSILON = 1e-6  # of the layer norms, as in ours
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
}


def sinusoidal_positions(length: int, d_model: int) -> torch.Tensor:
    """Sines in the even columns, cosines in the odd ones (Vaswani et al. 2017, 3.5)."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
    table = torch.zeros(length, d_model)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


@dataclasses.dataclass(frozen=True)
class Options:
    """Shape of a Transformer; the names are those of our config blocks."""

    vocab_size: int
    d_model: int
    num_heads: int
    d_ff: int
    num_layers: int
    dropout_rate: float = 0.0
    layer_norm: str = "pre"
    positions: str = "sinusoidal"
    max_positions: int = 1024
    activation: str = "relu"
    norm_epsilon: float = 1e-6
    embedding_norm: bool = False
    scale_embeddings: bool = True
    num_types: int = 0

    def make_norm(self) -> nn.LayerNorm:
        """A layer norm."""
        return nn.LayerNorm(self.d_model, eps=self.norm_epsilon)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, causal: bool = False
    ) -> torch.Tensor:
        """x (B, T, D) -> (B, T, D); mask is True where a query may look at a key."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(out.transpose(1, 2).reshape(batch, length, width))


class CrossAttention(nn.Module):
    """Attention of the decoder to the encoder; one product for keys and values."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(d_model, d_model)
        self.kv = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Queries x (B, T, D), keys and values from y (B, S, D) -> (B, T, D)."""
        batch, length, width = x.shape
        q = self.query(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
        kv = self.kv(y).view(batch, y.shape[1], 2, self.num_heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(out.transpose(1, 2).reshape(batch, length, width))


class Layer(nn.Module):
    """Self-attention, attention to the encoder if asked for, feed-forward.

    Dropout stands where Vaswani et al. 2017 (5.4) have it: on the output of a sub-layer.
    """

    def __init__(self, options: Options, cross: bool) -> None:
        super().__init__()
        self.pre_norm = options.layer_norm == "pre"
        self.activation = ACTIVATIONS[options.activation]
        self.self_attention = SelfAttention(options.d_model, options.num_heads)
        self.self_norm = options.make_norm()
        if cross:
            self.cross_attention = CrossAttention(options.d_model, options.num_heads)
            self.cross_norm = options.make_norm()
        self.expand = nn.Linear(options.d_model, options.d_ff)
        self.contract = nn.Linear(options.d_ff, options.d_model)
        self.feed_forward_norm = options.make_norm()
        self.dropout = nn.Dropout(options.dropout_rate)

    def _residual(
        self, x: torch.Tensor, norm: nn.LayerNorm, sublayer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        if self.pre_norm:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.contract(self.activation(self.expand(x)))

    def forward(
        self,
        x: torch.Tensor,
        self_mask: torch.Tensor | None = None,
        causal: bool = False,
        encoded: torch.Tensor | None = None,
        cross_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One layer, (B, T, D) -> (B, T, D)."""
        x = self._residual(x, self.self_norm, lambda h: self.self_attention(h, self_mask, causal))
        if encoded is not None:
            x = self._residual(
                x, self.cross_norm, lambda h: self.cross_attention(h, encoded, cross_mask)
            )
        return self._residual(x, self.feed_forward_norm, self._feed_forward)


class Stack(nn.Module):
    """Layers, with a norm at the end where the norms come first."""

    def __init__(self, num_layers: int, options: Options, cross: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(options, cross) for _ in range(num_layers))
        self.norm = options.make_norm() if options.layer_norm == "pre" else nn.Identity()

    def forward(self, x: torch.Tensor, **masks: torch.Tensor | bool | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        for layer in self.layers:
            x = layer(x, **masks)
        return self.norm(x)


class Embedding(nn.Module):
    """Tokens, positions and types; the matrix of the tokens makes the logits too."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        width = options.d_model
        self.tokens = nn.Embedding(options.vocab_size, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        if options.positions == "learned":
            self.positions = nn.Parameter(torch.randn(options.max_positions, width) * width**-0.5)
        else:
            table = sinusoidal_positions(options.max_positions, width)
            self.register_buffer("positions", table)
        self.types = nn.Embedding(options.num_types, width) if options.num_types else None
        self.norm = options.make_norm() if options.embedding_norm else nn.Identity()
        self.scale = width**0.5 if options.scale_embeddings else 1.0
        self.dropout = nn.Dropout(options.dropout_rate)

    def forward(self, tokens: torch.Tensor, types: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T) -> (B, T, D)."""
        x = self.tokens(tokens) * self.scale + self.positions[: tokens.shape[1]]
        if self.types is not None:
            x = x + self.types(types)
        return self.dropout(self.norm(x))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, V)."""
        return F.linear(x, self.tokens.weight)


class TransformerSeq2Seq(nn.Module):
    """Encoder-decoder with one embedding for both sides and the output layer."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.embedding = Embedding(options)
        self.encoder = Stack(options.num_layers, options, cross=False)
        self.decoder = Stack(options.num_layers, options, cross=True)

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """source (B, S), inputs (B, T) -> logits (B, T, V)."""
        mask = (source != PAD)[:, None, None, :]
        encoded = self.encoder(self.embedding(source), self_mask=mask)
        decoded = self.decoder(
            self.embedding(inputs), causal=True, encoded=encoded, cross_mask=mask
        )
        return self.embedding.logits(decoded)


class TransformerLM(nn.Module):
    """Decoder-only language model, tied embeddings."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.embedding = Embedding(options)
        self.decoder = Stack(options.num_layers, options, cross=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, T) -> logits (B, T, V)."""
        return self.embedding.logits(self.decoder(self.embedding(tokens), causal=True))


class TransformerEncoder(nn.Module):
    """BERT with its two heads (Devlin et al. 2019)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.embedding = Embedding(options)
        self.encoder = Stack(options.num_layers, options, cross=False)
        self.activation = ACTIVATIONS[options.activation]
        self.transform = nn.Linear(options.d_model, options.d_model)
        self.transform_norm = options.make_norm()
        self.bias = nn.Parameter(torch.zeros(options.vocab_size))
        self.pooler = nn.Linear(options.d_model, options.d_model)
        self.pair = nn.Linear(options.d_model, 2)

    def forward(
        self, tokens: torch.Tensor, types: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """tokens, types (B, T), places (B, P) -> logits (B, P, V), those of pairs (B, 2)."""
        x = self.encoder(self.embedding(tokens, types))
        hidden = x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))
        hidden = self.transform_norm(self.activation(self.transform(hidden)))
        return self.embedding.logits(hidden) + self.bias, self.pair(self.pooler(x[:, 0]).tanh())
