"""The families that papers made of the Transformer: blocks by preset.

tiny and mini are for tests and for minutes on two CPU cores; all other sizes were published, and
with the vocabulary of the paper have the published number of parameters (tests/test_families.py).
"""

from typing import Any

Block = dict[str, Any]
Sizes = dict[str, tuple[int, ...]]

# Radford et al. 2018 and 2019.
_GPT: Block = {
    "name": "transformer_lm",
    "positions": "learned",
    "scale_embeddings": False,
    "activation": "gelu_tanh",
    "norm_epsilon": 1e-5,
}
_GPT1: Block = _GPT | {"layer_norm": "post", "max_positions": 512}
_GPT2: Block = _GPT | {"max_positions": 1024}
# Devlin et al. 2019; Liu et al. 2019, whose tokens are of one type.
_BERT: Block = {
    "name": "transformer_encoder",
    "layer_norm": "post",
    "positions": "learned",
    "max_positions": 512,
    "scale_embeddings": False,
    "embedding_norm": True,
    "activation": "gelu",
    "norm_epsilon": 1e-12,
    "use_output_bias": True,
}
_ROBERTA: Block = _BERT | {"num_types": 1, "norm_epsilon": 1e-5}
# Raffel et al. 2020; version 1.1 is of Shazeer 2020.
_T5: Block = {
    "name": "transformer_seq2seq",
    "positions": "relative",
    "norm": "rms_norm",
    "use_bias": False,
    "scale_embeddings": False,
    "scale_attention": False,
    "scale_output": True,
}
_T5_GATED: Block = _T5 | {
    "activation": "gated_gelu",
    "scale_output": False,
    "tie_embeddings": False,
}
# Lewis et al. 2020.
_BART: Block = {
    "name": "transformer_seq2seq",
    "layer_norm": "post",
    "positions": "learned",
    "max_positions": 1024,
    "scale_embeddings": False,
    "embedding_norm": True,
    "activation": "gelu",
    "norm_epsilon": 1e-5,
    "use_output_bias": True,
}
# Junczys-Dowmunt et al. 2018, as the models of OPUS-MT have it.
_MARIAN: Block = {
    "name": "transformer_seq2seq",
    "layer_norm": "post",
    "positions": "sinusoidal_halves",
    "activation": "swish",
    "norm_epsilon": 1e-5,
    "use_output_bias": True,
}

# Size: d_model, heads, d_ff, layers (of both sides where there are two), and head_dim where it
# is not d_model / heads.
_OWN: Sizes = {"tiny": (64, 2, 256, 2), "mini": (256, 4, 1024, 4)}
_OWN_PAIR: Sizes = _OWN | {"mini": (256, 4, 1024, 2)}
_BASE: Sizes = {"base": (768, 12, 3072, 12)}
_SIZES: dict[str, tuple[Block, Sizes]] = {
    "gpt1": (_GPT1, _OWN | _BASE),
    "gpt2": (
        _GPT2,
        _OWN
        | {
            "small": (768, 12, 3072, 12),
            "medium": (1024, 16, 4096, 24),
            "large": (1280, 20, 5120, 36),
            "xl": (1600, 25, 6400, 48),
        },
    ),
    "bert": (_BERT, _OWN | _BASE | {"large": (1024, 16, 4096, 24)}),
    "roberta": (_ROBERTA, _OWN | _BASE | {"large": (1024, 16, 4096, 24)}),
    "t5": (
        _T5,
        _OWN_PAIR
        | _BASE
        | {
            "small": (512, 8, 2048, 6),
            "large": (1024, 16, 4096, 24),
            "3b": (1024, 32, 16384, 24, 128),
            "11b": (1024, 128, 65536, 24, 128),
        },
    ),
    "t5v1.1": (
        _T5_GATED,
        _OWN_PAIR
        | {
            "small": (512, 6, 1024, 8, 64),
            "base": (768, 12, 2048, 12),
            "large": (1024, 16, 2816, 24),
            "xl": (2048, 32, 5120, 24),
            "xxl": (4096, 64, 10240, 24),
        },
    ),
    "bart": (
        _BART,
        _OWN_PAIR | {"base": (768, 12, 3072, 6), "large": (1024, 16, 4096, 12)},
    ),
    "marian": (_MARIAN, _OWN_PAIR | {"base": (512, 8, 2048, 6)}),
}


def _sized(block: Block, sizes: tuple[int, ...]) -> Block:
    d_model, num_heads, d_ff, num_layers, *head_dim = sizes
    block = {**block, "d_model": d_model, "num_heads": num_heads, "d_ff": d_ff}
    pair = block["name"] == "transformer_seq2seq"
    for name in ("num_encoder_layers", "num_decoder_layers") if pair else ("num_layers",):
        block[name] = num_layers
    return block | ({"head_dim": head_dim[0]} if head_dim else {})


def family(*names: str) -> dict[str, Block]:
    """The presets of some families, such as those of "gpt1" and "gpt2"."""
    return {
        f"{name}-{size}": _sized(_SIZES[name][0], sizes)
        for name in names
        for size, sizes in _SIZES[name][1].items()
    }
