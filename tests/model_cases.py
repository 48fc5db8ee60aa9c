"""The models that contract tests run over: every entry of the table, with its options."""

import functools

import jax
import numpy as np
from family_cases import (
    FAMILY_LANGUAGE_MODELS,
    FAMILY_SEQ2SEQ,
    TRANSFORMER,
)

import models

VOCAB = 13
RECURRENT = {"embedding_size": 12, "hidden_size": 16}
EVERYTHING = {
    "cell": "lstm",
    "layer_norm": True,
    "peepholes": True,
    "zoneout_rate": 0.2,
    "variational_dropout_rate": 0.2,
    "recurrent_init": "xavier_uniform",
    "residual": True,
    **RECURRENT,
}

LANGUAGE_MODELS = {
    **FAMILY_LANGUAGE_MODELS,
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
    "transformer-unfused": {
        "name": "transformer_lm",
        "num_layers": 1,
        "attention": "dot_product",
        **TRANSFORMER,
    },
    "transformer-blockwise": {
        "name": "transformer_lm",
        "num_layers": 1,
        "attention": "blockwise",
        "attention_block": 3,
        **TRANSFORMER,
    },
    "transformer-prefix": {
        "name": "transformer_lm",
        "num_layers": 2,
        "bidirectional_prefix": True,
        "positions": "relative",
        "relative_buckets": 8,
        "relative_max_distance": 6,
        **TRANSFORMER,
    },
    "lstm": {"name": "recurrent_lm", **RECURRENT},
    "lstm-remat": {"name": "recurrent_lm", "num_layers": 1, "remat": True, **RECURRENT},
    "lstm-everything": {"name": "recurrent_lm", **EVERYTHING, "remat_chunk": 2},
    "gru": {"name": "recurrent_lm", "cell": "gru", "num_layers": 1, **RECURRENT},
    "rnn": {"name": "recurrent_lm", "cell": "rnn", "num_layers": 1, **RECURRENT},
}
SEQ2SEQ = {
    **FAMILY_SEQ2SEQ,
    "transformer": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 1,
        "num_decoder_layers": 2,
        **TRANSFORMER,
    },
    "transformer-post-norm": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 1,
        "layer_norm": "post",
        **TRANSFORMER,
    },
    "transformer-scan-remat": {
        "name": "transformer_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
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
    "lstm-attention-luong": {
        "name": "recurrent_seq2seq",
        "encoder": "reversed",
        "num_decoder_layers": 2,
        "attention": "multi_head",
        "num_heads": 2,
        "context_to": "output",
        "input_feeding": True,
        **RECURRENT,
    },
    "lstm-attention-convolutional": {
        "name": "recurrent_seq2seq",
        "encoder": "convolutional",
        "num_encoder_layers": 2,
        "attention": "dot",
        "context_to": "output",
        **RECURRENT,
    },
    "convolutional-attention": {
        "name": "convolutional_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "kernel_size": 4,  # two layers see all of the six words of the causal test
        **RECURRENT,
    },
    "hybrid-attention": {
        "name": "hybrid_seq2seq",
        "num_encoder_layers": 1,
        "num_decoder_layers": 2,
        **TRANSFORMER,
    },
    "hybrid-attention-plain": {
        "name": "hybrid_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "cross_attention": "last",
        "positions": False,
        "norm": False,
        "feed_forward": False,
        "scale_output": True,
        **TRANSFORMER,
    },
    "hybrid-attention-self-encoder": {
        "name": "hybrid_seq2seq",
        "encoder_layers": "self_attention",
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        **TRANSFORMER,
    },
    "hybrid-attention-self-decoder": {
        "name": "hybrid_seq2seq",
        "decoder_layers": "self_attention",
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        **TRANSFORMER,
    },
    "memory-attention": {
        "name": "memory_network",
        "embedding_size": 12,
        "num_hops": 2,
        "max_sentences": 3,
        "separator": 9,
    },
    "lstm-attention-coverage": {"name": "recurrent_seq2seq", "coverage": True, **RECURRENT},
    "lstm-attention-copy": {"name": "recurrent_seq2seq", "copy": True, **RECURRENT},
    "lstm-attention-copy-luong": {
        "name": "recurrent_seq2seq",
        "num_decoder_layers": 2,
        "attention": "multi_head",
        "num_heads": 2,
        "context_to": "output",
        "copy": True,
        "remat": True,
        **RECURRENT,
    },
    "lstm-attention-everything": {
        "name": "recurrent_seq2seq",
        "num_encoder_layers": 2,
        "num_decoder_layers": 3,
        "remat_chunk": 2,
        **EVERYTHING,
    },
    "gru-attention": {"name": "recurrent_seq2seq", "cell": "gru", **RECURRENT},
    "rnn": {"name": "recurrent_seq2seq", "cell": "rnn", "attention": "none", **RECURRENT},
}


def make(block: dict, **options) -> tuple:
    """(model, variables) with every parameter off its initial value, biases too."""
    model, variables = _made(tuple(sorted({**block, **options}.items())))
    return model, jax.tree.map(lambda leaf: leaf, variables)  # the caller's own, to change


@functools.cache
def _made(items: tuple) -> tuple:
    model = models.build(dict(items), VOCAB)
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    paths, tree = jax.tree_util.tree_flatten_with_path(shapes)
    random = np.random.default_rng(0)
    leaves = []
    for path, leaf in paths:
        values = random.normal(scale=0.35, size=leaf.shape) + (
            "scale" in jax.tree_util.keystr(path)
        )
        if "query" in jax.tree_util.keystr(path) and not getattr(model, "scale_attention", True):
            values /= leaf.shape[-1] ** 0.5  # as such models have it
        leaves.append(values.astype(leaf.dtype))
    return model, jax.tree.unflatten(tree, leaves)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "mutable", "train"))
def apply(model, variables, *arguments, **options):
    """model.apply in one compiled program, shared by all tests that give it the same shapes."""
    return model.apply(variables, *arguments, **options)


def tokens(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Random words, no special ids among them."""
    return np.random.default_rng(seed).integers(4, VOCAB, (rows, length)).astype(np.int32)


def sources(rows: int = 3, length: int = 6) -> np.ndarray:
    """Random sources of unequal lengths, padded on the right."""
    source_BS = tokens(rows, length, seed=7)
    for row in range(1, rows):
        source_BS[row, length - row :] = 0
    return source_BS
