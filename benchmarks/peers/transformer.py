"""The Transformers in PyTorch: encoder-decoder and decoder-only (Vaswani et al. 2017).

Written for speed: one product for queries, keys and values, the fused
`scaled_dot_product_attention`, the causal flag instead of a mask where the padding is on
the right. The module tree follows ours, so that weights can be copied (peers/weights.py).
"""

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

PAD = 0
EPSILON = 1e-6  # of the layer norms, as in ours


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
    max_length: int = 1024


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

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout_rate: float,
        pre_norm: bool,
        cross: bool,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attention = SelfAttention(d_model, num_heads)
        self.self_norm = nn.LayerNorm(d_model, eps=EPSILON)
        if cross:
            self.cross_attention = CrossAttention(d_model, num_heads)
            self.cross_norm = nn.LayerNorm(d_model, eps=EPSILON)
        self.expand = nn.Linear(d_model, d_ff)
        self.contract = nn.Linear(d_ff, d_model)
        self.feed_forward_norm = nn.LayerNorm(d_model, eps=EPSILON)
        self.dropout = nn.Dropout(dropout_rate)

    def _residual(
        self, x: torch.Tensor, norm: nn.LayerNorm, sublayer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        if self.pre_norm:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.contract(F.relu(self.expand(x)))

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
        self.layers = nn.ModuleList(
            Layer(
                options.d_model,
                options.num_heads,
                options.d_ff,
                options.dropout_rate,
                options.layer_norm == "pre",
                cross,
            )
            for _ in range(num_layers)
        )
        pre = options.layer_norm == "pre"
        self.norm = nn.LayerNorm(options.d_model, eps=EPSILON) if pre else nn.Identity()

    def forward(self, x: torch.Tensor, **masks: torch.Tensor | bool | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        for layer in self.layers:
            x = layer(x, **masks)
        return self.norm(x)


class Embedding(nn.Module):
    """Token embedding, scaled, plus positions; the same matrix makes the logits."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        width = options.d_model
        self.tokens = nn.Embedding(options.vocab_size, width)
        nn.init.normal_(self.tokens.weight, std=width**-0.5)
        self.register_buffer("positions", sinusoidal_positions(options.max_length, width))
        self.scale = width**0.5
        self.dropout = nn.Dropout(options.dropout_rate)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, T, D)."""
        return self.dropout(self.tokens(tokens) * self.scale + self.positions[: tokens.shape[1]])

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
