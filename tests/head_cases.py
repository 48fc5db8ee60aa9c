"""A Transformer built by hand in which one head carries the copy, and a task without files."""

import functools

import jax
import numpy as np
from model_cases import TRANSFORMER

import data
import models
import tasks
from analysis.heads import Head, Heads
from tasks.losses import batch_nll, token_features

PLANTED = Head("cross", 0, 1)
WIDTH, EOS = 16, data.EOS
BLOCK = {
    "name": "transformer_seq2seq",
    **TRANSFORMER,
    "d_model": WIDTH,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}


class Pairs(tasks.Task):
    """Losses of a model without data: of an encoder-decoder, or of a language model."""

    def __init__(self, kind: str = "seq2seq") -> None:
        self.fields = ("source", "inputs") if kind == "seq2seq" else ("inputs", "segments")

    def inputs(self, batch: dict) -> tuple:
        return tuple(batch[name] for name in self.fields)

    def token_losses(self, model, variables, batch: dict) -> tuple:
        x_BTD, output, _ = token_features(
            model, variables, self.inputs(batch), jax.random.key(0), train=False
        )
        return batch_nll(x_BTD, output, batch), None

    def loss(self, model, variables, batch: dict, key, train: bool) -> dict:
        losses_BT, _ = self.token_losses(model, variables, batch)
        return {"loss": (losses_BT.sum(), batch["weights"].sum())}


def copies(rows: int = 6, length: int = 6, words: int = 8) -> dict[str, np.ndarray]:
    """A batch of random strings of unequal lengths to copy; its last row is empty."""
    random = np.random.default_rng(3)
    source_BS = np.zeros((rows, length), np.int32)
    for row in range(rows - 1):
        num_words = length - 1 - row % 3
        source_BS[row, :num_words] = random.integers(4, words, num_words)
        source_BS[row, num_words] = EOS
    inputs_BT = np.roll(np.where(source_BS == EOS, 0, source_BS), 1, axis=1)
    inputs_BT[:-1, 0] = data.BOS
    weights_BT = (source_BS > 0).astype(np.float32)
    return {"source": source_BS, "inputs": inputs_BT, "targets": source_BS, "weights": weights_BT}


@functools.cache
def planted() -> tuple:
    """(model, variables, heads): head 1 of the cross-attention looks where the decoder is and
    writes the word that it sees; all others say next to nothing.

    Words stand in the last features, which positions hardly use, and the fast sines of the
    first four say where a word is.
    """
    model = models.build(BLOCK, WIDTH // 2)
    random, variables = np.random.default_rng(0), zeros_of(model)
    params = variables["params"]
    words = slice(WIDTH // 2, WIDTH)
    # Without the slow cosines, which are 1 throughout, and with a mean near 0, so that layer norm
    # does the same to all words. The model multiplies by 4, the root of WIDTH.
    cosines = np.arange(WIDTH // 2) % 2 / 4
    params["embed"]["embedding"][:, words] = np.eye(WIDTH // 2) - cosines - 3 / WIDTH
    for part in ("encoder", "decoder"):
        for layer in params[part]["layers_0"].values():
            for name in ("query", "key", "value", "out"):
                if name in layer and "kernel" in layer[name] and "hidden" not in layer:
                    kernel = layer[name]["kernel"]
                    kernel += random.normal(scale=0.02, size=kernel.shape)
    cross = params["decoder"]["layers_0"]["cross_attention"]
    head = PLANTED.head
    for name in ("query", "key"):
        cross[name]["kernel"][:, head] = 0
        cross[name]["kernel"][range(4), head, range(4)] = 24
    cross["value"]["kernel"][:, head] = 0
    cross["value"]["kernel"][words, head] = np.eye(WIDTH // 2)
    cross["out"]["kernel"][head] = 0
    cross["out"]["kernel"][head][:, words] = 16 * np.eye(WIDTH // 2)
    params["decoder"]["norm"]["scale"] *= 3
    return model, variables, Heads(model, variables)


def zeros_of(model) -> dict:
    """Variables of zeros, but for the scales of norms."""

    def fill(path, leaf) -> np.ndarray:
        return np.full(leaf.shape, "scale" in jax.tree_util.keystr(path), np.float32)

    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(fill, shapes)
