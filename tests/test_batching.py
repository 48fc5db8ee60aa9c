"""Batches of pairs: content, exactly once, purity, shapes, padding, evaluation, bad input."""

import hashlib
import itertools
import threading

import numpy as np
import pytest

import data
from data import BOS, EOS, PAD
from data.randomness import shuffled
from errors import ConfigError, DataError
from tests.data_cases import (
    PAIR_OPTIONS,
    Texts,
    epoch_of,
    pair_batches,
    random_pairs,
    random_source,
    sentence,
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def source():
    return random_source()


@pytest.fixture(scope="module")
def tokenizer(source, cache):
    return data.build_tokenizer({"name": "words"}, source, cache)


@pytest.fixture(scope="module")
def batches(source, tokenizer, cache):
    return data.PairBatches(source, tokenizer, cache, **PAIR_OPTIONS)


def digest(batch):
    content = b"".join(key.encode() + batch[key].tobytes() for key in sorted(batch))
    return hashlib.sha256(content).hexdigest()


def padded(ids, width):
    return [*ids, *[PAD] * (width - len(ids))]


@pytest.mark.parametrize("split", data.SPLITS)
def test_rows_hold_their_examples(batches, tokenizer, split):
    examples, num_rows = batches.examples(split), 0
    for step in range(batches.num_batches(split)):
        batch = batches.batch(split, step)
        S, T = batch["source"].shape[1], batch["targets"].shape[1]
        for row, number in enumerate(batch["index"]):
            num_rows += 1
            own = {key: values[row].tolist() for key, values in batch.items() if key != "index"}
            if number < 0:
                assert own == dict.fromkeys(own, [0] * T) | {"source": [0] * S}
                continue
            source_ids = tokenizer.encode(examples[number].source)
            target_ids = tokenizer.encode(examples[number].target)
            assert own["source"] == padded([*source_ids, EOS], S)
            assert own["inputs"] == padded([BOS, *target_ids], T)
            assert own["targets"] == padded([*target_ids, EOS], T)
            assert own["weights"] == padded([1.0] * (len(target_ids) + 1), T)
        types = {key: values.dtype for key, values in batch.items()}
        assert types == dict.fromkeys(types, np.int32) | {"weights": np.float32}
    print(f"{num_rows} rows")


def indices(found):
    return np.concatenate([batch["index"] for batch in found])


def test_each_example_once_an_epoch_in_a_new_order(batches):
    orders = []
    for epoch in (0, 1, 2, 7):
        index = indices(epoch_of(batches, epoch))
        index = index[index >= 0]
        assert sorted(index) == list(range(600))
        orders.append(index.tolist())
    assert len({tuple(order) for order in orders}) == len(orders)
    # Neighbours of one epoch are no neighbours in the next.
    together = [set(itertools.pairwise(order)) for order in orders]
    assert len(together[0] & together[1]) < 30


def test_shapes_come_mixed(batches):
    orders = [[batch["source"].shape for batch in epoch_of(batches, epoch)] for epoch in (0, 1)]
    assert orders[0] != orders[1]
    for order in orders:
        num_changes = sum(a != b for a, b in itertools.pairwise(order))
        assert num_changes > len(order) / 3  # sorted by shape there would be three


def test_a_batch_depends_on_seed_split_and_step_alone(batches, source, tokenizer, cache):
    size = batches.num_batches("train")
    steps = [0, 1, size - 1, size, 3 * size + 2, 1000 * size + 5]
    wanted = {step: digest(batches.batch("train", step)) for step in steps}
    assert len(set(wanted.values())) == len(steps)
    # another object, another order of asking, evaluation in between, another thread
    fresh = data.PairBatches(source, tokenizer, cache, **PAIR_OPTIONS)
    for step in reversed(steps):
        fresh.batch("validation", 0)
        assert digest(fresh.batch("train", step)) == wanted[step]
    found = {}
    threads = [
        threading.Thread(target=lambda s=s: found.update({s: digest(fresh.batch("train", s))}))
        for s in steps * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted
    other = data.PairBatches(source, tokenizer, cache, **{**PAIR_OPTIONS, "seed": 4})
    assert all(digest(other.batch("train", step)) != wanted[step] for step in steps)
    for split in ("validation", "test"):
        assert digest(other.batch(split, 0)) == digest(batches.batch(split, 0))


def test_the_order_is_the_same_in_every_version():
    assert shuffled(10, "a key").tolist() == [7, 1, 5, 4, 0, 6, 2, 8, 9, 3]
    assert sorted(shuffled(1000, "3 examples 0")) == list(range(1000))


def test_shuffles_are_fair():
    count, trials = 6, 3000
    where = np.zeros((count, count))
    for trial in range(trials):
        where[np.arange(count), shuffled(count, f"{trial}")] += 1
    expected = trials / count
    chi_square = ((where - expected) ** 2 / expected).sum()
    assert chi_square < 60  # 25 degrees of freedom: above it once in 10,000


def test_empty_rows_are_spread_evenly(batches):
    real_rows = {}
    for batch in epoch_of(batches, 0):
        real_rows.setdefault(batch["source"].shape, []).append(int((batch["index"] >= 0).sum()))
    for counts in real_rows.values():
        assert max(counts) - min(counts) <= 1
    assert len(real_rows) > 1


def test_long_pairs_are_dropped_in_training_and_cut_in_evaluation(cache):
    pairs = [(sentence(i, n), sentence(i + 99, m)) for i, (n, m) in enumerate(LENGTHS)]
    batches = pair_batches(cache, Texts(train=pairs, validation=pairs, test=pairs), max_length=16)
    index = indices(epoch_of(batches, 0))
    fitting = [i for i, (n, m) in enumerate(LENGTHS) if max(n, m) < 16]
    assert sorted(index[index >= 0]) == fitting
    assert batches.num_examples("train") == len(fitting)
    assert batches.counts("train").dropped == len(LENGTHS) - len(fitting)
    assert batches.counts("test").truncated == len(LENGTHS) - len(fitting)
    found = epoch_of(batches, 0, "test")
    index = indices(found)
    assert sorted(index[index >= 0]) == list(range(len(LENGTHS)))
    for batch in found:
        for row, number in enumerate(batch["index"]):
            if number >= 0:
                n, m = (min(length + 1, 16) for length in LENGTHS[number])
                assert (batch["source"][row] != PAD).sum() == n
                assert batch["source"][row, n - 1] == EOS
                assert batch["weights"][row].sum() == m


LENGTHS = [(3, 4), (15, 15), (16, 2), (2, 16), (15, 1), (40, 40), (1, 1)]


def test_evaluation_has_each_example_once_whatever_the_size(cache):
    pairs = random_pairs(33, 8, longest=15)
    num_cases = 0
    for size in (*range(1, 10), 16, 17, 31, 33):
        for tokens_per_batch in (64, 256):
            source = Texts(train=pairs, validation=pairs[:size], test=pairs[-size:])
            batches = pair_batches(cache, source, tokens_per_batch=tokens_per_batch)
            found = epoch_of(batches, 0, "validation")
            index = indices(found)
            assert sorted(index[index >= 0]) == list(range(size))
            weight = sum(batch["weights"].sum() for batch in found)
            assert weight == sum(len(target.split()) + 1 for _, target in pairs[:size])
            assert weight == batches.counts("validation").tokens
            num_cases += 1
    print(f"{num_cases} cases")


def test_the_fingerprint_follows_what_decides_the_batches(batches, cache, tmp_path):
    known = batches.fingerprint()
    assert pair_batches(tmp_path).fingerprint() == known  # same text, other place
    pairs = {split: random_source().pairs(split) for split in data.SPLITS}
    others = [pair_batches(cache, **{key: value + 8}) for key, value in PAIR_OPTIONS.items()]
    for split in data.SPLITS:
        shorter = {**pairs, split: pairs[split][:-1]}
        swapped = {**pairs, split: [pairs[split][1], pairs[split][0], *pairs[split][2:]]}
        first = pairs[split][0]._replace(target=f"{pairs[split][0].target} w0")
        edited = {**pairs, split: [first, *pairs[split][1:]]}
        for changed in (shorter, swapped, edited):
            source = Texts(**{s: [pair[:2] for pair in rows] for s, rows in changed.items()})
            others.append(pair_batches(cache, source))
    prints = {other.fingerprint() for other in others}
    assert len(prints | {known}) == len(others) + 1
    print(f"{len(others)} changes")


@pytest.mark.parametrize("field", ["source", "inputs", "targets"])
@pytest.mark.parametrize("bad", [-1, -(2**31), 77, 2**31 - 1])
def test_an_id_that_the_vocabulary_lacks_is_refused(field, bad):
    batch = {key: np.zeros((4, 6), np.int32) for key in ("source", "inputs", "targets")}
    batch["index"] = np.full(4, -1, np.int32)
    data.check_ids(batch, 77)
    batch[field][2, 5] = bad
    with pytest.raises(DataError) as caught:
        data.check_ids(batch, 77)
    wanted = f"'{field}', row 2, column 5: id {bad} is outside the vocabulary of 77."
    assert str(caught.value) == f"batch field {wanted}"


def test_every_batch_is_checked(batches, monkeypatch):
    monkeypatch.setattr(batches.tokenizer, "vocab_size", 20)
    with pytest.raises(DataError, match="is outside the vocabulary of 20"):
        batches.batch("train", 0)


BAD_OPTIONS = [
    ({"tokens_per_batch": 0}, ConfigError, "config.task.tokens_per_batch must be at least 1"),
    ({"max_length": 1}, ConfigError, "config.task.max_length must be at least 2, got 1"),
    ({"num_buckets": 0}, ConfigError, "config.task.num_buckets must be at least 1, got 0"),
    ({"max_length": 3}, DataError, "texts: every training pair is longer than max_length, 3"),
]


@pytest.mark.parametrize(("options", "kind", "words"), BAD_OPTIONS)
def test_bad_options_are_refused_in_one_line(cache, options, kind, words):
    source = Texts(**{split: [("a b c", "a b"), ("a", "b c d")] for split in data.SPLITS})
    with pytest.raises(kind) as caught:
        pair_batches(cache, source, **options).num_batches("train")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_steps_and_splits_that_are_not_there_are_refused(batches):
    last = batches.num_batches("test") - 1
    for split, step, words in (
        ("test", last + 1, f"step {last + 1} of test, which has steps 0 to {last}"),
        ("train", -1, "step -1 of train"),
        ("dev", 0, "no split 'dev'. Known: train, validation, test"),
    ):
        with pytest.raises(DataError, match=words):
            batches.batch(split, step)
