"""Our Transformers as models of Hugging Face, Marian, GPT-2 and BERT, with the same weights."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

import models
import registry
from benchmarks.peers.training import mean_loss
from benchmarks.peers.transformer import EPSILON, sinusoidal_positions
from benchmarks.peers.weights import set_linear, set_norm
from benchmarks.workloads import Workload
from models import pretrained
from trees import named_leaves

PAD, BOS, EOS = 0, 2, 3
DROPOUTS = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
)


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


def published(block: Mapping[str, Any], vocab_size: int, params: Any = None) -> nn.Module:
    """Their model of one of our blocks by the tables of models/pretrained, without dropout.

    Args:
        params: ours, to start with; None: fresh ones.
    """
    target = models.MODELS[block["name"]]
    block = registry.with_defaults(target, block, ["vocab_size"])
    name = pretrained.fitting(block, target)
    family = pretrained.FAMILIES[name]
    fields = family.config(block, target) | dict.fromkeys(DROPOUTS, 0.0)
    # Nothing ends: in generation both sides write the length that is asked for.
    ids = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None}
    config = transformers.AutoConfig.for_model(name, vocab_size=vocab_size, **fields, **ids)
    model = getattr(transformers, family.architecture)(config).eval()
    if params is not None:
        tensors = family.write(named_leaves(params), block, pretrained.Ids.same(vocab_size))
        theirs = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
        unknown = model.load_state_dict(theirs, strict=False).unexpected_keys
        assert not unknown, unknown
        model.tie_weights()
    return model


def loss_of(model: nn.Module, workload: Workload) -> Callable[[], torch.Tensor]:
    """The mean loss of a family's model on the batch that our side trains on."""
    batch = {name: torch.from_numpy(array).long() for name, array in workload.batch().items()}
    tokens, targets = batch["inputs"], batch["targets"]
    if not workload.hidden:
        return lambda: mean_loss(model(input_ids=tokens, use_cache=False).logits, targets, 0.0)
    labels = torch.full_like(tokens, -100).scatter(1, batch["places"], targets)
    return lambda: (
        model(
            input_ids=tokens,
            token_type_ids=batch["types"],
            labels=labels,
            next_sentence_label=1 - batch["is_next"],  # theirs is 0 for neighbours
        ).loss
    )


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
