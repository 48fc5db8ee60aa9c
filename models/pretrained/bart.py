"""BART (Lewis et al. 2020), and Marian (Junczys-Dowmunt et al. 2018) as OPUS-MT has it."""

from models.pretrained.options import ACTIVATIONS, Field, Options
from models.pretrained.table import Row, Tensors, rows

_PARTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}


def _attention(theirs: str, ours: str) -> list[str]:
    lines = [f"{theirs}.out_proj.weight {ours}/out/kernel from_heads"]
    lines.append(f"{theirs}.out_proj.bias {ours}/out/bias")
    for part, name in _PARTS.items():
        lines.append(f"{theirs}.{name}.weight {ours}/{part}/kernel to_heads")
        lines.append(f"{theirs}.{name}.bias {ours}/{part}/bias bias_to_heads")
    return lines


def _norm(theirs: str, ours: str) -> list[str]:
    return [f"{theirs}.weight {ours}/scale", f"{theirs}.bias {ours}/bias"]


def _layers(side: str) -> list[Row]:
    """The layers of one side."""
    theirs, ours = f"model.{side}.layers.{{i}}", f"{side}/layers_{{i}}"
    cross = [
        *_attention(f"{theirs}.encoder_attn", f"{ours}/cross_attention"),
        *_norm(f"{theirs}.encoder_attn_layer_norm", f"{ours}/cross_norm"),
    ]
    return rows(
        *_attention(f"{theirs}.self_attn", f"{ours}/self_attention"),
        *_norm(f"{theirs}.self_attn_layer_norm", f"{ours}/self_norm"),
        *(cross if side == "decoder" else []),
        f"{theirs}.fc1.weight {ours}/feed_forward/hidden/kernel transpose",
        f"{theirs}.fc1.bias {ours}/feed_forward/hidden/bias",
        f"{theirs}.fc2.weight {ours}/feed_forward/out/kernel transpose",
        f"{theirs}.fc2.bias {ours}/feed_forward/out/bias",
        *_norm(f"{theirs}.final_layer_norm", f"{ours}/feed_forward_norm"),
    )


def _entrance(side: str) -> list[Row]:
    """Learned positions, and the norm behind them."""
    return rows(
        f"model.{side}.embed_positions.weight {side}/positions/table offset",
        *_norm(f"model.{side}.layernorm_embedding", f"{side}/embedding_norm"),
    )


_SHARED = rows("model.shared.weight embed/embedding rows") + rows(
    "final_logits_bias logits_bias rows_1V", head="bias"
)
_TIES = {
    "lm_head.weight": "model.shared.weight",
    "model.encoder.embed_tokens.weight": "model.shared.weight",
    "model.decoder.embed_tokens.weight": "model.shared.weight",
}
_BODY = _SHARED + _layers("encoder") + _layers("decoder")

BART_TENSORS = Tensors(
    _BODY + _entrance("encoder") + _entrance("decoder"),
    prefix="model.",
    ties=_TIES,
    passed_over=("*encoder.version", "*decoder.version"),
)
MARIAN_TENSORS = Tensors(
    _BODY,
    prefix="model.",
    ties=_TIES,
    passed_over=("model.*coder.embed_positions.weight",),  # sines, which are computed here
)

_FIELDS = [
    Field("d_model", "d_model"),
    Field("encoder_attention_heads", "num_heads"),
    Field("encoder_ffn_dim", "d_ff"),
    Field("encoder_layers", "num_encoder_layers"),
    Field("decoder_layers", "num_decoder_layers"),
    Field("dropout", "dropout_rate", 0.1),
    Field("activation_function", "activation", "gelu", ACTIVATIONS),
    Field("scale_embedding", "scale_embeddings", False, {True: True, False: False}),
]
_FIXED = {
    "name": "transformer_seq2seq",
    "layer_norm": "post",
    "norm_epsilon": 1e-5,
    "use_output_bias": True,
}
_REQUIRED = {
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
    "normalize_before": False,
    "add_final_layer_norm": False,
}
_EQUAL = {
    "decoder_attention_heads": "encoder_attention_heads",
    "decoder_ffn_dim": "encoder_ffn_dim",
}

BART_OPTIONS = Options(
    _FIXED | {"positions": "learned", "embedding_norm": True},
    [*_FIELDS, Field("max_position_embeddings", "max_positions", shift=2)],
    required=_REQUIRED
    | {"static_position_embeddings": False, "normalize_embedding": True, "extra_pos_embeddings": 2},
    equal=_EQUAL,
)
MARIAN_OPTIONS = Options(
    _FIXED | {"positions": "sinusoidal_halves"},
    _FIELDS,
    required=_REQUIRED
    | {
        "static_position_embeddings": True,
        "normalize_embedding": False,
        "share_encoder_decoder_embeddings": True,
    },
    equal=_EQUAL,
)
