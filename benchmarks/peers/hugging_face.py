"""Our Transformers as models of Hugging Face, Marian and GPT-2, with the same weights."""

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


def gpt2(block: Mapping[str, Any], vocab_size: int) -> nn.Module:
    """A GPT-2 of the shape of a "transformer_lm" block with the options of that family."""
    config = transformers.GPT2Config(
        vocab_size=vocab_size,
        n_positions=block["max_positions"],
        n_embd=block["d_model"],
        n_layer=block["num_layers"],
        n_head=block["num_heads"],
        n_inner=block["d_ff"],
        activation_function="gelu_new",
        layer_norm_epsilon=block["norm_epsilon"],
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=None,  # nothing ends: both sides write the length that is asked for
    )
    return transformers.GPT2LMHeadModel(config).eval()


def copy_to_gpt2(model: nn.Module, params: Mapping[str, Any]) -> None:
    """Our parameters into a GPT-2, whose products have the inputs first, as ours."""

    def put(parameter: torch.Tensor, *values: Any) -> None:
        shape = (-1, parameter.shape[-1] // len(values))
        parts = [np.asarray(value, np.float32).reshape(shape) for value in values]
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.concatenate(parts, 1)).reshape(parameter.shape))

    decoder = params["decoder"]
    put(model.transformer.wte.weight, params["embed"]["embedding"])
    put(model.transformer.wpe.weight, decoder["positions"]["table"])
    set_norm(model.transformer.ln_f, decoder["norm"])
    for i, layer in enumerate(model.transformer.h):
        block = decoder[f"layers_{i}"]
        attention, hidden = block["self_attention"], block["feed_forward"]["hidden"]
        set_norm(layer.ln_1, block["self_norm"])
        set_norm(layer.ln_2, block["feed_forward_norm"])
        for name in ("weight", "bias"):
            ours = "kernel" if name == "weight" else "bias"
            heads = [attention[part][ours] for part in ("query", "key", "value")]
            put(getattr(layer.attn.c_attn, name), *heads)
            put(getattr(layer.attn.c_proj, name), attention["out"][ours])
            put(getattr(layer.mlp.c_fc, name), hidden[ours])
            put(getattr(layer.mlp.c_proj, name), block["feed_forward"]["out"][ours])


def go_on(model: nn.Module, prompts: np.ndarray, length: int) -> np.ndarray:
    """The `length` most probable tokens after each prompt, one by one, (B, length)."""
    tokens = torch.from_numpy(prompts).long()
    with torch.inference_mode():
        found = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            min_new_tokens=length,
            max_new_tokens=length,
        )
    return found[:, tokens.shape[1] :].numpy()
