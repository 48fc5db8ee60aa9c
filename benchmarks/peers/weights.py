"""Copies our parameters into the PyTorch models, so that both compute the same numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers.recurrent import LSTMAttentionSeq2Seq
from benchmarks.peers.transformer import (
    Embedding,
    Layer,
    Stack,
    TransformerEncoder,
    TransformerLM,
    TransformerSeq2Seq,
)

Tree = Mapping[str, Any]


def _set(parameter: torch.Tensor, value: Any) -> None:
    value = np.asarray(value, np.float32)
    if parameter.shape != value.shape:
        raise ValueError(f"shapes differ: {tuple(parameter.shape)} and {value.shape}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(value)))


def _columns(*blocks: Tree, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of Dense layers side by side as (out, in), and their biases as one vector."""
    kernels = [np.asarray(b["kernel"], np.float32).reshape(inputs, -1) for b in blocks]
    biases = [np.asarray(b["bias"], np.float32).ravel() for b in blocks]
    return np.concatenate(kernels, 1).T, np.concatenate(biases)


def set_linear(linear: nn.Linear, *blocks: Tree) -> None:
    """One `nn.Linear` from one or more of our Dense layers that read the same input."""
    kernel, bias = _columns(*blocks, inputs=linear.in_features)
    _set(linear.weight, kernel)
    _set(linear.bias, bias)


def set_norm(norm: nn.LayerNorm, block: Tree) -> None:
    """Scale and offset of a layer norm."""
    _set(norm.weight, block["scale"])
    _set(norm.bias, block["bias"])


def _set_layer(layer: Layer, block: Tree) -> None:
    attention = block["self_attention"]
    set_linear(layer.self_attention.qkv, attention["query"], attention["key"], attention["value"])
    set_linear(layer.self_attention.out, attention["out"])
    set_norm(layer.self_norm, block["self_norm"])
    if "cross_attention" in block:
        attention = block["cross_attention"]
        set_linear(layer.cross_attention.query, attention["query"])
        set_linear(layer.cross_attention.kv, attention["key"], attention["value"])
        set_linear(layer.cross_attention.out, attention["out"])
        set_norm(layer.cross_norm, block["cross_norm"])
    set_linear(layer.expand, block["feed_forward"]["hidden"])
    set_linear(layer.contract, block["feed_forward"]["out"])
    set_norm(layer.feed_forward_norm, block["feed_forward_norm"])


def _set_stack(stack: Stack, block: Tree) -> None:
    for i, layer in enumerate(stack.layers):
        _set_layer(layer, block[f"layers_{i}"])
    if isinstance(stack.norm, nn.LayerNorm):
        set_norm(stack.norm, block["norm"])


def _set_embedding(embedding: Embedding, params: Tree, stack: Tree) -> None:
    _set(embedding.tokens.weight, params["embed"]["embedding"])
    if isinstance(embedding.positions, nn.Parameter):
        _set(embedding.positions, stack["positions"]["table"])
    if embedding.types is not None:
        _set(embedding.types.weight, params["types"]["embedding"])
    if isinstance(embedding.norm, nn.LayerNorm):
        set_norm(embedding.norm, stack["embedding_norm"])


def copy_transformer(
    peer: TransformerLM | TransformerSeq2Seq | TransformerEncoder, params: Tree
) -> None:
    """The parameters of our Transformer of the same shape (loop form, tied embeddings)."""
    for name in {"encoder", "decoder"} & params.keys():
        _set_embedding(peer.embedding, params, params[name])
        _set_stack(getattr(peer, name), params[name])
    if isinstance(peer, TransformerEncoder):
        for name in ("transform", "pooler", "pair"):
            set_linear(getattr(peer, name), params[name])
        set_norm(peer.transform_norm, params["transform_norm"])
        _set(peer.bias, params["logits_bias"])


def _set_lstm(lstm: nn.Module, block: Tree, suffix: str = "", fed: int = 0) -> None:
    """Our cell's W and U into PyTorch's; both order the gates i, f, g, o.

    Args:
        fed: rows of U, after the hidden state's, that PyTorch reads as inputs (a context).
    """
    recurrent = np.asarray(block["recurrent"])
    hidden = recurrent.shape[0] - fed
    inputs = np.concatenate([np.asarray(block["input"]["kernel"]), recurrent[hidden:]])
    _set(getattr(lstm, f"weight_ih{suffix}"), inputs.T)
    _set(getattr(lstm, f"weight_hh{suffix}"), recurrent[:hidden].T)
    _set(getattr(lstm, f"bias_ih{suffix}"), block["input"]["bias"])
    _set(getattr(lstm, f"bias_hh{suffix}"), np.zeros(4 * hidden))


def copy_lstm_attention(peer: LSTMAttentionSeq2Seq, params: Tree) -> None:
    """The parameters of our LSTM with additive attention; PyTorch's second bias is zero."""
    _set(peer.embedding.weight, params["embed"]["embedding"])
    for i in range(peer.encoder.num_layers):
        layer = params[f"encoder_{i}"]
        _set_lstm(peer.encoder, layer["forward"]["unit"], f"_l{i}")
        _set_lstm(peer.encoder, layer["backward"]["unit"], f"_l{i}_reverse")
    decoder = params["attention_decoder"]
    set_linear(peer.bridge, params["bridge"])
    score = decoder["score"]
    _set(peer.attention.query.weight, np.asarray(score["query"]).T)
    set_linear(peer.attention.key, score["key"])
    _set(peer.attention.score.weight, np.asarray(score["v"])[None])
    _set_lstm(peer.cell, decoder["unit"], fed=2 * peer.encoder.hidden_size)
    if peer.decoder is not None:
        for i in range(peer.decoder.num_layers):
            _set_lstm(peer.decoder, params["decoder"][f"layers_{i}"]["unit"], f"_l{i}")
    set_linear(peer.readout, params["readout"])
