"""BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019)."""

from models.pretrained.options import ACTIVATIONS, Field, Options
from models.pretrained.table import Row, Tensors, rows


def _body(name: str, positions: str) -> list[Row]:
    """Everything below the heads."""
    attention = [
        line
        for part in ("query", "key", "value")
        for line in (
            f"{{h}}.attention.self.{part}.weight {{ours}}/self_attention/{part}/kernel to_heads",
            f"{{h}}.attention.self.{part}.bias {{ours}}/self_attention/{part}/bias bias_to_heads",
        )
    ]
    return rows(
        "{name}.embeddings.word_embeddings.weight embed/embedding rows",
        "{name}.embeddings.position_embeddings.weight encoder/positions/table {positions}",
        "{name}.embeddings.token_type_embeddings.weight types/embedding",
        "{name}.embeddings.LayerNorm.weight encoder/embedding_norm/scale",
        "{name}.embeddings.LayerNorm.bias encoder/embedding_norm/bias",
        *attention,
        "{h}.attention.output.dense.weight {ours}/self_attention/out/kernel from_heads",
        "{h}.attention.output.dense.bias {ours}/self_attention/out/bias",
        "{h}.attention.output.LayerNorm.weight {ours}/self_norm/scale",
        "{h}.attention.output.LayerNorm.bias {ours}/self_norm/bias",
        "{h}.intermediate.dense.weight {ours}/feed_forward/hidden/kernel transpose",
        "{h}.intermediate.dense.bias {ours}/feed_forward/hidden/bias",
        "{h}.output.dense.weight {ours}/feed_forward/out/kernel transpose",
        "{h}.output.dense.bias {ours}/feed_forward/out/bias",
        "{h}.output.LayerNorm.weight {ours}/feed_forward_norm/scale",
        "{h}.output.LayerNorm.bias {ours}/feed_forward_norm/bias",
        name=name,
        positions=positions,
        h=f"{name}.encoder.layer.{{i}}",
        ours="encoder/layers_{i}",
    ) + rows(
        "{name}.pooler.dense.weight pooler/kernel transpose",
        "{name}.pooler.dense.bias pooler/bias",
        name=name,
        head="pooler",
    )


def _words(dense: str, norm: str, bias: str) -> list[Row]:
    """The head that fills words in."""
    return rows(
        "{dense}.weight transform/kernel transpose",
        "{dense}.bias transform/bias",
        "{norm}.weight transform_norm/scale",
        "{norm}.bias transform_norm/bias",
        "{bias} logits_bias rows",
        dense=dense,
        norm=norm,
        bias=bias,
        head="words",
    )


_PAIR = rows(
    "cls.seq_relationship.weight pair/kernel transpose_reverse",
    "cls.seq_relationship.bias pair/bias reverse",
    head="pair",
)
_OLDER = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

BERT_TENSORS = Tensors(
    _body("bert", "same")
    + _words(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    )
    + _PAIR,
    prefix="bert.",
    ties={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    passed_over=("*embeddings.position_ids",),
    renamed=_OLDER,
)
ROBERTA_TENSORS = Tensors(
    _body("roberta", "offset") + _words("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    prefix="roberta.",
    ties={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    passed_over=("*embeddings.position_ids",),
    renamed=_OLDER,
    ours_alone=("pair/*",),
)

OPTIONS = Options(
    {
        "name": "transformer_encoder",
        "layer_norm": "post",
        "positions": "learned",
        "scale_embeddings": False,
        "embedding_norm": True,
        "use_output_bias": True,
    },
    [
        Field("hidden_size", "d_model"),
        Field("num_hidden_layers", "num_layers"),
        Field("num_attention_heads", "num_heads"),
        Field("intermediate_size", "d_ff"),
        Field("max_position_embeddings", "max_positions"),
        Field("type_vocab_size", "num_types", 2),
        Field("layer_norm_eps", "norm_epsilon", 1e-12),
        Field("hidden_dropout_prob", "dropout_rate", 0.1),
        Field("hidden_act", "activation", "gelu", ACTIVATIONS),
    ],
    required={
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "is_encoder_decoder": False,
        "tie_word_embeddings": True,
    },
)
