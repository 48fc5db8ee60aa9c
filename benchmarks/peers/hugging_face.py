"""Our Transformer as a MarianMTModel of Hugging Face, with the same weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from benchmarks.peers.transformer import EPSILON, sinusoidal_positions
from benchmarks.peers.weights import set_linear, set_norm

PAD, BOS, EOS = 0, 2, 3


def marian(block: Mapping[str, Any], vocab_size: int, max_length: int) -> nn.Module:
    """A Marian model of the shape of a "transformer_seq2seq" block with layer_norm "post"."""
    config = transformers.MarianConfig(
        vocab_size=vocab_size,
        d_model=block["d_model"],
        encoder_layers=block["num_encoder_layers"],
        decoder_layers=block["num_decoder_layers"],
        encoder_attention_heads=block["num_heads"],
        decoder_attention_heads=block["num_heads"],
        encoder_ffn_dim=block["d_ff"],
        decoder_ffn_dim=block["d_ff"],
        activation_function="relu",
        dropout=0.0,
        attention_dropout=0.0,
        max_position_embeddings=max_length,
        scale_embedding=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        forced_eos_token_id=None,
        decoder_start_token_id=BOS,
    )
    model = transformers.MarianMTModel(config).eval()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = EPSILON
    return model


def _set_attention(attention: nn.Module, block: Mapping[str, Any]) -> None:
    for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        set_linear(getattr(attention, theirs), block[ours])
    set_linear(attention.out_proj, block["out"])


def copy_to_marian(model: nn.Module, params: Mapping[str, Any]) -> None:
    """Our parameters, and our order of sines and cosines, into a Marian model."""
    embedding = torch.from_numpy(np.array(params["embed"]["embedding"]))
    with torch.no_grad():
        model.model.shared.weight.copy_(embedding)
        model.final_logits_bias.zero_()
    model.tie_weights()
    for name in ("encoder", "decoder"):
        stack = getattr(model.model, name)
        positions = stack.embed_positions
        with torch.no_grad():
            positions.weight.copy_(sinusoidal_positions(*positions.weight.shape))
        for i, layer in enumerate(stack.layers):
            block = params[name][f"layers_{i}"]
            _set_attention(layer.self_attn, block["self_attention"])
            set_norm(layer.self_attn_layer_norm, block["self_norm"])
            if name == "decoder":
                _set_attention(layer.encoder_attn, block["cross_attention"])
                set_norm(layer.encoder_attn_layer_norm, block["cross_norm"])
            set_linear(layer.fc1, block["feed_forward"]["hidden"])
            set_linear(layer.fc2, block["feed_forward"]["out"])
            set_norm(layer.final_layer_norm, block["feed_forward_norm"])


def generate(model: nn.Module, source: np.ndarray, num_beams: int, length: int) -> np.ndarray:
    """Exactly `length` tokens for each row by beam search, (B, length), without BOS."""
    tokens = torch.from_numpy(source).long()
    with torch.inference_mode():
        found = model.generate(
            tokens,
            attention_mask=(tokens != PAD).long(),
            num_beams=num_beams,
            do_sample=False,
            min_new_tokens=length - 1,
            max_new_tokens=length,
            length_penalty=0.0,
            early_stopping=False,
        )
    return found[:, 1:].numpy()
