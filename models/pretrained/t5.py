"""T5 (Raffel et al. 2020); version 1.1 has gates and an output of its own (Shazeer 2020)."""

from typing import Any

from models.pretrained.options import Field, Options
from models.pretrained.table import Row, Tensors, rows

_LETTERS = {"query": "q", "key": "k", "value": "v"}


def _attention(theirs: str, ours: str) -> list[str]:
    """Lines of one attention without biases."""
    return [
        f"{theirs}.{letter}.weight {ours}/{part}/kernel to_heads"
        for part, letter in _LETTERS.items()
    ] + [f"{theirs}.o.weight {ours}/out/kernel from_heads"]


def _stack(side: str, last: int) -> list[Row]:
    """The encoder or the decoder, whose feed-forward is its sub-layer `last`."""
    block, ours = f"{side}.block.{{i}}.layer", f"{side}/layers_{{i}}"
    cross = [
        *_attention(f"{block}.1.EncDecAttention", f"{ours}/cross_attention"),
        f"{block}.1.layer_norm.weight {ours}/cross_norm/scale",
    ]
    table = f"{side}/positions/table"
    dense = f"{block}.{last}.DenseReluDense"
    body = rows(
        f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight {table}",
        "{side}.final_layer_norm.weight {side}/norm/scale",
        *_attention(f"{block}.0.SelfAttention", f"{ours}/self_attention"),
        f"{block}.0.layer_norm.weight {ours}/self_norm/scale",
        *(cross if last == 2 else []),
        f"{block}.{last}.layer_norm.weight {ours}/feed_forward_norm/scale",
        f"{dense}.wo.weight {ours}/feed_forward/out/kernel transpose",
        side=side,
    )
    plain = rows(f"{dense}.wi.weight {ours}/feed_forward/hidden/kernel transpose", when="plain")
    gated = rows(
        f"{dense}.wi_0.weight {ours}/feed_forward/hidden/kernel transpose",
        f"{dense}.wi_1.weight {ours}/feed_forward/linear/kernel transpose",
        when="gated",
    )
    return body + plain + gated


TENSORS = Tensors(
    rows("shared.weight embed/embedding rows")
    + _stack("encoder", 1)
    + _stack("decoder", 2)
    + rows("lm_head.weight output/kernel rows", when="untied"),
    ties={
        "lm_head.weight": "shared.weight",
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
    # Old files have it, and no version of the model reads it.
    passed_over=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
)


def _is_tied(config: Any) -> bool:
    """Version 1.0 scales its outputs; before the field said so, this one did."""
    return config.get("tie_word_embeddings") is not False


OPTIONS = Options(
    {
        "name": "transformer_seq2seq",
        "layer_norm": "pre",
        "positions": "relative",
        "norm": "rms_norm",
        "use_bias": False,
        "scale_embeddings": False,
        "scale_attention": False,
    },
    [
        Field("d_model", "d_model"),
        Field("d_kv", "head_dim"),
        Field("d_ff", "d_ff"),
        Field("num_heads", "num_heads"),
        Field("num_layers", "num_encoder_layers"),
        Field("num_decoder_layers", "num_decoder_layers", lambda config: config["num_layers"]),
        Field("relative_attention_num_buckets", "relative_buckets", 32),
        Field("relative_attention_max_distance", "relative_max_distance", 128),
        Field("layer_norm_epsilon", "norm_epsilon", 1e-6),
        Field("dropout_rate", "dropout_rate", 0.1),
        Field(
            "feed_forward_proj",
            "activation",
            "relu",
            {
                "relu": "relu",
                "gelu": "gelu",
                "gelu_new": "gelu_tanh",
                "silu": "swish",
                "gated-relu": "gated_relu",
                "gated-gelu": "gated_gelu",
                "gated-silu": "swiglu",
            },
        ),
        Field("scale_decoder_outputs", "scale_output", _is_tied, {True: True, False: False}),
    ],
    required={"is_encoder_decoder": True},
)
