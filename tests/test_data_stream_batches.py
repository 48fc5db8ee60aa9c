"""Batches that are pieces of streams: every token once, in order, and where states begin."""

import itertools
from collections import Counter

import numpy as np
import pytest

import data
from tests.data_cases import epoch_of, random_source
from tests.test_data_language_batches import expected_pieces

ROWS, K1, K2 = 8, 6, 10


def streams(cache, truncate=K2, rows=ROWS, **options):
    source = random_source(num_train=40)
    tokenizer = data.build_tokenizer({"name": "words"}, source, cache)
    options = {"seed": 1, "sequence_length": K1, "sequences_per_batch": rows} | options
    return data.StreamBatches(source, tokenizer, cache, truncate=truncate, **options)


def joined(batches, name, last=K1):
    """A field of each stream of an epoch, without what is read again."""
    return np.concatenate([batch[name][:, -last:] for batch in batches], axis=1)


@pytest.mark.parametrize("side", ["target", "both"])
def test_every_token_is_predicted_once_an_epoch_in_its_order(data_dir, side):
    batches = streams(data_dir, side=side)
    for split, epochs in (("train", (0, 1)), ("test", (0,))):
        wanted = expected_pieces(batches, split, 10**6)
        for epoch in epochs:
            found = epoch_of(batches, epoch, split)
            fields = [joined(found, name) for name in ("inputs", "targets", "weights", "segments")]
            inside = fields[3] > 0
            # one after another, the streams are all documents
            rows = list(zip(*(field[inside].tolist() for field in fields[:3]), strict=True))
            ends = [i + 1 for i, row in enumerate(rows) if row[1] == data.EOS]
            assert Counter(tuple(rows[i:j]) for i, j in itertools.pairwise([0, *ends])) == wanted
            assert sum(b["weights"].sum() for b in found) == batches.counts(split).tokens


def test_segments_say_where_the_state_begins_anew(data_dir):
    batches = streams(data_dir, truncate=K1)
    for split in ("train", "test"):
        found = epoch_of(batches, 0, split)
        before = [np.pad(b["segments"][:, :-1], ((0, 0), (1, 0)), constant_values=1) for b in found]
        inputs, segments = joined(found, "inputs"), joined(found, "segments")
        begins = (segments != np.concatenate(before, axis=1)) & (segments > 0)
        wanted = (inputs == data.BOS) & (segments > 0)
        if split == "test":
            assert wanted[:, 0].all()
        wanted[:, 0] = True
        assert (begins == wanted).all()


def test_what_is_read_again_is_what_was_read(data_dir):
    batches = streams(data_dir)
    once = streams(data_dir, truncate=K1)
    found = epoch_of(batches, 1)
    inputs = joined(epoch_of(once, 1), "inputs")
    assert (inputs == joined(found, "inputs")).all()
    assert (found[0]["segments"][:, : K2 - K1] == 0).all()
    assert (found[0]["segments"][:, K2 - K1] != 1).all()
    for i, batch in enumerate(found[1:], start=1):
        again = inputs[:, i * K1 - (K2 - K1) : i * K1]
        assert (batch["inputs"][:, : K2 - K1] == again).all()
        assert not batch["weights"][:, : K2 - K1].any()
    assert batches.batch("test", 0)["inputs"].shape == (ROWS, K1)


def test_a_batch_depends_on_seed_split_and_step_alone(data_dir):
    one, other = streams(data_dir), streams(data_dir)
    size = one.num_batches("train")
    steps = (0, size - 1, size, 7 * size + 1)
    wanted = {step: one.batch("train", step) for step in steps}
    for step in reversed(steps):
        again = other.batch("train", step)
        assert all((again[name] == values).all() for name, values in wanted[step].items())
    assert (wanted[0]["inputs"] != wanted[size]["inputs"]).any()
    assert one.fingerprint() != streams(data_dir, truncate=K1).fingerprint()
