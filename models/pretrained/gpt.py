"""GPT-1 and GPT-2 (Radford et al. 2018, 2019)."""

from typing import Any

from models.pretrained.options import ACTIVATIONS, Field, Options
from models.pretrained.table import Tensors, rows

_LAYER = rows(
    "{h}.attn.c_attn.weight {query}/kernel,{key}/kernel,{value}/kernel conv_to_qkv",
    "{h}.attn.c_attn.bias {query}/bias,{key}/bias,{value}/bias conv_to_qkv",
    "{h}.attn.c_proj.weight {ours}/self_attention/out/kernel conv_from_heads",
    "{h}.attn.c_proj.bias {ours}/self_attention/out/bias",
    "{h}.ln_1.weight {ours}/self_norm/scale",
    "{h}.ln_1.bias {ours}/self_norm/bias",
    "{h}.mlp.c_fc.weight {ours}/feed_forward/hidden/kernel",
    "{h}.mlp.c_fc.bias {ours}/feed_forward/hidden/bias",
    "{h}.mlp.c_proj.weight {ours}/feed_forward/out/kernel",
    "{h}.mlp.c_proj.bias {ours}/feed_forward/out/bias",
    "{h}.ln_2.weight {ours}/feed_forward_norm/scale",
    "{h}.ln_2.bias {ours}/feed_forward_norm/bias",
    h="transformer.h.{i}",
    ours="decoder/layers_{i}",
    query="decoder/layers_{i}/self_attention/query",
    key="decoder/layers_{i}/self_attention/key",
    value="decoder/layers_{i}/self_attention/value",
)
_OUTPUT = rows("lm_head.weight output/kernel rows", when="untied")
_BUFFERS = ("*h.*.attn.bias", "*h.*.attn.masked_bias")

GPT2_TENSORS = Tensors(
    rows(
        "transformer.wte.weight embed/embedding rows",
        "transformer.wpe.weight decoder/positions/table",
        "transformer.ln_f.weight decoder/norm/scale",
        "transformer.ln_f.bias decoder/norm/bias",
    )
    + _LAYER
    + _OUTPUT,
    prefix="transformer.",
    ties={"lm_head.weight": "transformer.wte.weight"},
    passed_over=_BUFFERS,
)
GPT1_TENSORS = Tensors(
    rows(
        "transformer.tokens_embed.weight embed/embedding rows",
        "transformer.positions_embed.weight decoder/positions/table",
    )
    + _LAYER
    + _OUTPUT,
    prefix="transformer.",
    ties={"lm_head.weight": "transformer.tokens_embed.weight"},
    passed_over=_BUFFERS,
)

_FIXED = {"name": "transformer_lm", "positions": "learned", "scale_embeddings": False}
_FIELDS = [
    Field("n_embd", "d_model"),
    Field("n_layer", "num_layers"),
    Field("n_head", "num_heads"),
    Field("n_positions", "max_positions"),
    Field("layer_norm_epsilon", "norm_epsilon", 1e-5),
    Field("resid_pdrop", "dropout_rate", 0.1),
]


def _four_times(config: Any) -> int:
    return 4 * config["n_embd"]


GPT2_OPTIONS = Options(
    _FIXED | {"layer_norm": "pre"},
    [
        *_FIELDS,
        Field("n_inner", "d_ff", _four_times),
        Field("activation_function", "activation", "gelu_new", ACTIVATIONS),
    ],
    required={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
    },
)
# Its gelu is the one with tanh, whatever its name.
GPT1_OPTIONS = Options(
    _FIXED | {"layer_norm": "post"},
    [
        *_FIELDS,
        Field("", "d_ff", _four_times),
        Field("afn", "activation", "gelu", {"gelu": "gelu_tanh", "relu": "relu", "silu": "swish"}),
    ],
)
