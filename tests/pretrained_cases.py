"""Tiny models of theirs with random weights, and the same as ours."""

import functools
import math

import jax
import numpy as np

import models
import registry
from data import EOS
from models.pretrained import Ids
from trees import named_leaves

VOCAB = 31
_PAIR = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 20,
    "forced_eos_token_id": None,
}
_GPT = {
    "vocab_size": VOCAB,
    "n_positions": 24,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 30,
    "eos_token_id": 30,
}
_BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
_T5 = {
    "vocab_size": VOCAB,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
# Their class, the fields of its config, and their ids of our PAD, UNK, BOS and EOS.
CASES = {
    "gpt2": ("GPT2LMHeadModel", _GPT, (30, 30, 30, 30)),
    "gpt2-untied": ("GPT2LMHeadModel", _GPT | {"tie_word_embeddings": False}, (5, 4, 30, 29)),
    "openai-gpt": ("OpenAIGPTLMHeadModel", _GPT, (30, 30, 30, 30)),
    "bert": ("BertForPreTraining", _BERT, (0, 10, 11, 12)),
    "roberta": (
        "RobertaForMaskedLM",
        _BERT | {"layer_norm_eps": 1e-5, "type_vocab_size": 1},
        (1, 3, 0, 2),
    ),
    "t5": ("T5ForConditionalGeneration", _T5, (0, 2, 0, 1)),
    "t5-v1.1": (
        "T5ForConditionalGeneration",
        _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        (0, 2, 0, 1),
    ),
    "bart": ("BartForConditionalGeneration", _PAIR, (1, 3, 2, 2)),
    "marian": (
        "MarianMTModel",
        _PAIR
        | {
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": 30,
            "decoder_start_token_id": 30,
            "eos_token_id": 0,
        },
        (30, 1, 30, 0),
    ),
}


def ids_of(special: tuple[int, ...], vocab_size: int = VOCAB) -> Ids:
    """Ours in the order PAD, UNK, BOS, EOS, then all others; what repeats EOS or an earlier one
    is a copy."""
    kept = {their: our for our, their in reversed(list(enumerate(special)))}
    kept |= {special[EOS]: EOS}
    copies = tuple(our for our, their in enumerate(special) if kept[their] != our)
    rest = [i for i in range(vocab_size) if i not in special]
    return Ids(np.array([*special, *rest]), copies)


@functools.cache
def theirs(name: str):
    """A model of theirs in which every parameter is random."""
    import torch
    import transformers

    kind, fields, _ = CASES[name]
    kind = getattr(transformers, kind)
    torch.manual_seed(len(name))
    model = kind(kind.config_class(**fields)).eval()
    if name == "t5-v1.1":  # published ones have two matrices, which this library's own have not
        model.lm_head = torch.nn.Linear(16, VOCAB, bias=False)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):  # no sines
            scale = 1 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.2
            parameter.copy_(torch.randn_like(parameter) * scale + (parameter == 1))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
    return model


def tensors_of(model) -> dict[str, np.ndarray]:
    """What a file of theirs holds."""
    return {name: x.detach().numpy() for name, x in model.state_dict().items()}


def completed(block: dict) -> dict:
    """A model block with all options."""
    target = models.MODELS[block["name"]]
    return registry.with_defaults(target, block, ["vocab_size"])


def shapes_of(model) -> dict[str, tuple[int, ...]]:
    """Of all parameters, by path."""
    tree = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    return {path: leaf.shape for path, leaf in named_leaves(tree).items()}
