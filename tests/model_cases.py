"""The models that contract tests run over: every entry of the table, with its options."""

import jax
import numpy as np

import models

VOCAB = 13
TRANSFORMER = {"d_model": 16, "num_heads": 2, "d_ff": 32}
RECURRENT = {"embedding_size": 12, "hidden_size": 16}

LANGUAGE_MODELS = {
    "transformer": {"name": "transformer_lm", "num_layers": 2, **TRANSFORMER},
    "transformer-post-norm": {
        "name": "transformer_lm",
        "num_layers": 2,
        "layer_norm": "post",
        **TRANSFORMER,
    },
    "transformer-scan-remat": {
        "name": "transformer_lm",
        "num_layers": 2,
        "scan_layers": True,
        "remat": True,
        **TRANSFORMER,
    },
    "transformer-unfused": {"name": "transformer_lm", "attention": "dot_product", **TRANSFORMER},
    "lstm": {"name": "recurrent_lm", **RECURRENT},
    "lstm-remat": {"name": "recurrent_lm", "num_layers": 1, "remat": True, **RECURRENT},
}
SEQ2SEQ = {
    "transformer": {"name": "transformer_seq2seq", **TRANSFORMER},
    "transformer-post-norm": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 1,
        "layer_norm": "post",
        **TRANSFORMER,
    },
    "transformer-scan-remat": {
        "name": "transformer_seq2seq",
        "scan_layers": True,
        "remat": True,
        **TRANSFORMER,
    },
    "lstm": {"name": "recurrent_seq2seq", "attention": "none", **RECURRENT},
    "lstm-attention": {"name": "recurrent_seq2seq", **RECURRENT},
    "lstm-attention-deep": {
        "name": "recurrent_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 3,
        "remat": True,
        **RECURRENT,
    },
}


def make(block: dict, **options) -> tuple:
    """(model, variables) with every parameter moved off its initial value, biases too."""
    model = models.build({**block, **options}, VOCAB)
    variables = models.init(model, jax.random.key(0))
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        leaf + 0.2 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return model, jax.tree.unflatten(tree, moved)


def tokens(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Random words, no special ids among them."""
    return np.random.default_rng(seed).integers(4, VOCAB, (rows, length)).astype(np.int32)


def sources(rows: int = 3, length: int = 6) -> np.ndarray:
    """Random sources of unequal lengths, padded on the right."""
    source_BS = tokens(rows, length, seed=7)
    for row in range(1, rows):
        source_BS[row, length - row :] = 0
    return source_BS
