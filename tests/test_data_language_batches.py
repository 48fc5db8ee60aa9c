"""Batches for language models: every document whole and once, segments, packing."""

import itertools
from collections import Counter

import numpy as np
import pytest

import data
from data import BOS, EOS
from data.language_batches import SIDES, pack
from errors import ConfigError
from tests.data_cases import Texts, epoch_of, random_pairs, random_source

OPTIONS = {"seed": 1, "sequence_length": 24, "sequences_per_batch": 8, "packed": True}


def make(cache, source=None, **options):
    source = source or random_source(num_train=300)
    tokenizer = data.build_tokenizer({"name": "words"}, source, cache)
    return data.LanguageBatches(source, tokenizer, cache, **{**OPTIONS, **options})


def expected_pieces(batches, split, width):
    """(inputs, targets, weights) of every piece of every document, from its definition."""
    pieces = Counter()
    for example in batches.examples(split):
        source_ids, target_ids = batches.tokenizer.encode_batch([example.source, example.target])
        text = source_ids if batches.side == "source" else target_ids
        tokens, num_given = [BOS, *text, EOS], 0
        if batches.side == "both":
            tokens, num_given = [BOS, *source_ids, BOS, *target_ids, EOS], len(source_ids) + 1
        rows = [
            (token, following, float(place >= num_given))
            for place, (token, following) in enumerate(itertools.pairwise(tokens))
        ]
        for start in range(0, len(rows), width):
            pieces[tuple(rows[start : start + width])] += 1
    return pieces


def found_pieces(found):
    """The same, cut out of batches by their segments."""
    pieces = Counter()
    for batch in found:
        for row in range(len(batch["index"])):
            segments = batch["segments"][row]
            count = segments.max()
            # 1, 2, ... in order, then 0: no segment is torn
            assert (np.diff(segments[segments > 0]) >= 0).all()
            assert set(segments[segments > 0]) == set(range(1, count + 1))
            assert (segments[(segments > 0).sum() :] == 0).all()
            assert (batch["index"][row] == -1) == (count == 0)
            for field in ("inputs", "targets", "weights"):
                assert (batch[field][row][segments == 0] == 0).all()
            for segment in range(1, count + 1):
                at = segments == segment
                fields = [batch[name][row][at] for name in ("inputs", "targets", "weights")]
                # what follows an input is in the same segment
                assert (fields[1][:-1] == fields[0][1:]).all()
                pieces[tuple(zip(*map(np.ndarray.tolist, fields), strict=True))] += 1
    return pieces


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("side", SIDES)
def test_each_document_is_there_once_an_epoch(data_dir, side, packed):
    num_pieces = 0
    for width in (24, 200):  # shorter than many documents, longer than all
        batches = make(data_dir, side=side, packed=packed, sequence_length=width)
        for split, epochs in (("train", (0, 1, 5)), ("validation", (0,)), ("test", (0,))):
            wanted = expected_pieces(batches, split, width)
            for epoch in epochs:
                found = epoch_of(batches, epoch, split)
                assert found_pieces(found) == wanted
                assert sum(b["weights"].sum() for b in found) == batches.counts(split).tokens
                assert {b["inputs"].shape for b in found} == {(8, width)}
                num_pieces += wanted.total()
            assert batches.num_examples(split) == len(batches.examples(split))
    print(f"{num_pieces} pieces of documents")


def test_the_index_is_the_example_that_a_row_begins_with(data_dir):
    for packed in (True, False):
        batches = make(data_dir, packed=packed, sequence_length=100)
        examples = batches.examples("train")
        for batch in epoch_of(batches, 0):
            for number, inputs in zip(batch["index"], batch["inputs"], strict=True):
                if number >= 0:
                    wanted = batches.tokenizer.encode(examples[number].target)
                    assert inputs[1 : 1 + len(wanted)].tolist() == wanted


def test_unpacked_rows_have_one_document(data_dir):
    batches = make(data_dir, packed=False, sequence_length=100)
    found = epoch_of(batches, 0)
    assert max(batch["segments"].max() for batch in found) == 1
    index = np.concatenate([batch["index"] for batch in found])
    assert sorted(index[index >= 0]) == list(range(300))


@pytest.mark.parametrize("packed", [True, False])
def test_a_batch_depends_on_seed_split_and_step_alone(data_dir, packed):
    batches = make(data_dir, packed=packed)
    size = batches.num_batches("train")
    steps = [0, 1, size - 1, size, 5 * size + 1, 999 * size]
    content = {step: batches.batch("train", step) for step in steps}
    assert len({batch["inputs"].tobytes() for batch in content.values()}) == len(steps)
    fresh, other = make(data_dir, packed=packed), make(data_dir, packed=packed, seed=2)
    for step in reversed(steps):
        fresh.batch("test", 0)
        again = fresh.batch("train", step)
        assert all((again[key] == values).all() for key, values in content[step].items())
        assert (other.batch("train", step)["inputs"] != content[step]["inputs"]).any()
    again = other.batch("test", 0)
    assert all((again[key] == values).all() for key, values in fresh.batch("test", 0).items())


def test_the_size_of_a_batch_does_not_change_its_rows(data_dir):
    rows = []
    for size in (1, 3, 8, 100):
        batches = make(data_dir, sequences_per_batch=size)
        found = epoch_of(batches, 0, "validation")
        inputs = np.concatenate([batch["inputs"] for batch in found])
        is_real = np.concatenate([batch["index"] for batch in found]) >= 0
        assert is_real[: is_real.sum()].all()  # empty rows only at the end
        rows.append(inputs[is_real].tolist())
    assert all(other == rows[0] for other in rows)


@pytest.mark.parametrize("width", [8, 64, 128])
def test_packing_loses_little_and_tears_nothing(width):
    for seed in range(5):
        random = np.random.default_rng(seed)
        lengths = np.clip(random.lognormal(np.log(width / 5), 0.6, 2000), 1, width).astype(int)
        firsts, num_rows = pack(lengths, width)
        used = np.zeros(num_rows * width, int)
        for first, length in zip(firsts, lengths, strict=True):
            assert first // width == (first + length - 1) // width
            used[first : first + length] += 1
        assert used.max() == 1
        assert used.reshape(num_rows, width)[:, 0].all()
        assert lengths.sum() / used.size > 0.98
    print(f"last utilisation {lengths.sum() / used.size:.4f}")


def test_packing_known_answers():
    for lengths, width, num_rows in (
        ([5], 5, 1),
        ([3, 3, 3], 5, 3),
        ([1, 4, 2, 3], 5, 2),
        ([5, 1, 5], 5, 3),
        ([2, 2, 2, 2], 4, 2),
    ):
        assert pack(np.array(lengths), width)[1] == num_rows


def test_packed_batches_are_nearly_full(data_dir):
    pairs = random_pairs(2000, 4)
    source = Texts(train=pairs, validation=pairs[:99], test=pairs[:99])
    batches = make(data_dir, source, sequence_length=128)
    found = epoch_of(batches, 0)
    share = np.mean([batch["segments"] > 0 for batch in found])
    unpacked = epoch_of(make(data_dir, source, sequence_length=128, packed=False), 0)
    print(f"packed {share:.4f}, unpacked {np.mean([b['segments'] > 0 for b in unpacked]):.4f}")
    assert share > 0.95
    assert len(found) < len(unpacked) / 5


def test_the_fingerprint_follows_the_options(data_dir):
    known = make(data_dir).fingerprint()
    changes = [
        {"seed": 2},
        {"side": "source"},
        {"side": "both"},
        {"sequence_length": 25},
        {"sequences_per_batch": 16},
        {"packed": False},
        {"source": random_source(num_train=301)},
    ]
    prints = {make(data_dir, **change).fingerprint() for change in changes}
    assert len(prints | {known}) == len(changes) + 1
    assert make(data_dir).fingerprint() == known
    pairs = data.PairBatches(make(data_dir).source, make(data_dir).tokenizer, data_dir, seed=1)
    assert pairs.fingerprint() != known


BAD_OPTIONS = [
    ({"side": "targets"}, "side: Unknown value: 'targets'. Did you mean 'target'? Known: both,"),
    ({"sequence_length": 1}, "sequence_length must be at least 2, got 1"),
    ({"sequences_per_batch": 0}, "sequences_per_batch must be at least 1, got 0"),
]


@pytest.mark.parametrize(("options", "words"), BAD_OPTIONS)
def test_bad_options_are_refused_in_one_line(data_dir, options, words):
    with pytest.raises(ConfigError) as caught:
        make(data_dir, **options)
    assert str(caught.value).startswith(f"config.task.{words}")
    assert "\n" not in str(caught.value)
