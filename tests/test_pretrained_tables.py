"""Tables of published weights as pure functions: options, rows of the vocabulary."""

import numpy as np
import pytest
from pretrained_cases import CASES, completed, ids_of

import models
from errors import ConfigError
from models.pretrained import FAMILIES, Ids, fitting


@pytest.mark.parametrize("special", [(30, 30, 30, 30), (0, 2, 0, 1), (1, 3, 2, 2), (0, 10, 11, 12)])
def test_rows_go_to_our_ids_and_back_without_their_copies(special):
    ids = ids_of(special)
    theirs = np.random.default_rng(0).normal(size=(31, 3)).astype(np.float32)
    ours = ids.read(theirs)
    assert len(ours) == 31 + len(ids.copies)
    assert np.array_equal(ours[:4], theirs[list(special)])
    assert np.array_equal(ids.write(ours), theirs)
    ours[list(ids.copies)] += 1  # as training does, for a copy is a row of its own
    assert np.array_equal(ids.write(ours), theirs)
    assert np.array_equal(Ids.same(31).read(theirs), theirs)
    with pytest.raises(ValueError, match="30 rows for 31 ids"):
        ids.read(theirs[:-1])
    with pytest.raises(ValueError, match="32 rows for 31 ids"):
        ids.read(np.concatenate([theirs, theirs[:1]]))


@pytest.mark.parametrize(
    ("fields", "scaled"),
    [
        ({}, True),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
    ],
)
def test_configs_of_all_ages_say_whether_t5_scales_its_outputs(fields, scaled):
    block = FAMILIES["t5"].block({**CASES["t5"][1], **fields}, {})
    assert block["scale_output"] is scaled
    target = models.MODELS[block["name"]]
    written = FAMILIES["t5"].config(completed(block), target)
    assert FAMILIES["t5"].block(written, {}) == block


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("bert", {"norm": "rms_norm"}, "bert: norm 'rms_norm' has no counterpart"),
        ("gpt2", {"heads_kept": (1, 2)}, "gpt2: heads_kept"),
        ("gpt2", {"positions": "rotary"}, "positions 'rotary'"),
        ("gpt2", {"activation": "swiglu"}, "activation 'swiglu' has no counterpart"),
        ("t5", {"d_ff": 4, "num_kv_heads": 1}, "num_kv_heads 1"),
    ],
)
def test_a_model_without_a_family_is_refused_by_option(name, fields, sentence):
    block = completed(FAMILIES[name].block(CASES[name][1], {}))
    target = models.MODELS[block["name"]]
    assert fitting(block, target) in FAMILIES
    with pytest.raises(ConfigError, match=sentence):
        fitting({**block, **fields}, target)
