"""Transformers with the options of the families, for the contract tests."""

TRANSFORMER = {"d_model": 16, "num_heads": 2, "d_ff": 32}
GPT = {"positions": "learned", "max_positions": 24, "scale_embeddings": False, **TRANSFORMER}
BERT = {"layer_norm": "post", "activation": "gelu", "embedding_norm": True, **GPT}
T5 = {
    "positions": "relative",
    "relative_buckets": 8,
    "relative_max_distance": 6,
    "norm": "rms_norm",
    "use_bias": False,
    "scale_embeddings": False,
    "scale_attention": False,
    **TRANSFORMER,
}

FAMILY_LANGUAGE_MODELS = {
    "transformer-gpt2": {
        "name": "transformer_lm",
        "num_layers": 1,
        "activation": "gelu_tanh",
        "norm_epsilon": 1e-5,
        "use_output_bias": True,
        **GPT,
    },
    "transformer-relative": {"name": "transformer_lm", "num_layers": 2, **T5},
    "transformer-rotary-grouped": {
        "name": "transformer_lm",
        "num_layers": 2,
        "positions": "rotary",
        "norm": "rms_norm",
        "activation": "swiglu",
        "scan_layers": True,
        **TRANSFORMER,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 6,
    },
    "transformer-alibi-multi-query": {
        "name": "transformer_lm",
        "num_layers": 1,
        "positions": "alibi",
        "attention": "dot_product",
        "num_kv_heads": 1,
        **TRANSFORMER,
    },
}
FAMILY_SEQ2SEQ = {
    "transformer-t5": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 1,
        "num_decoder_layers": 2,
        "scale_output": True,
        **T5,
    },
    "transformer-t5-gated": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "tie_embeddings": False,
        "activation": "gated_gelu",
        "scan_layers": True,
        **T5,
    },
    "transformer-bart": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "use_output_bias": True,
        **BERT,
    },
    "transformer-marian": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "layer_norm": "post",
        "positions": "sinusoidal_halves",
        "activation": "swish",
        "use_output_bias": True,
        **TRANSFORMER,
    },
}
ENCODERS = {
    "bert": {"name": "transformer_encoder", "num_layers": 2, "use_output_bias": True, **BERT},
    "relative": {"name": "transformer_encoder", "num_layers": 1, "num_types": 1, **T5},
    "rotary-scan": {
        "name": "transformer_encoder",
        "num_layers": 2,
        "positions": "rotary",
        "scan_layers": True,
        "num_kv_heads": 1,
        **TRANSFORMER,
    },
    "alibi": {
        "name": "transformer_encoder",
        "num_layers": 1,
        "positions": "alibi",
        "tie_embeddings": False,
        **TRANSFORMER,
    },
}
