"""Batches of corrupted text: pure functions of their numbers, every text once, honest pairs."""

import numpy as np
import pytest

import data
from data import BOS, CLS, EOS, MASK, PAD, SENTINELS, SEP
from data.corruption import num_masked
from tests.data_cases import Texts, epoch_of, random_source, sentence

COMMON = {"seed": 1, "side": "target", "sequence_length": 48, "sequences_per_batch": 8}
NOISE = {"packed": True, "rate": 0.15, "mean_span": 3.0, "permute": True}
KINDS = {
    "masked": (data.MaskedBatches, {"pairs": True, "rate": 0.15, "whole_words": False}),
    "words": (data.MaskedBatches, {"pairs": False, "rate": 0.15, "whole_words": True}),
    "spans": (data.DenoisingBatches, {"objective": "span_corruption", **NOISE}),
    "infilling": (data.DenoisingBatches, {"objective": "text_infilling", **NOISE}),
    "rest": (data.DenoisingBatches, {"objective": "prefix", **NOISE}),
    "prefix": (data.PrefixBatches, {"packed": True}),
    "marked": (data.PrefixBatches, {"packed": True, "marked": True}),
}
TEXT = random_source(num_train=300, num_held_out=60)


def make(cache, kind, source=TEXT, tokenizer="words", **changes):
    """Batches of a kind, over a tokenizer that has all reserved ids."""
    trained = data.build_tokenizer({"name": tokenizer}, source, cache)
    wider = trained.reserve((MASK, CLS, SEP, *SENTINELS))
    cls, options = KINDS[kind]
    return cls(source, wider, cache, **{**COMMON, **options, **changes})


def content(batch):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in batch.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_function_of_seed_split_and_step(data_dir, kind):
    batches = make(data_dir, kind)
    size = batches.num_batches("train")
    steps = [0, 1, size - 1, size, 7 * size + 2]
    known = {step: content(batches.batch("train", step)) for step in steps}
    held_out = content(batches.batch("validation", 0))
    assert len({known[step]["inputs"] for step in steps}) == len(steps)
    fresh, other = make(data_dir, kind), make(data_dir, kind, seed=2)
    for step in reversed(steps):
        assert content(fresh.batch("train", step)) == known[step]
        assert content(other.batch("train", step))["inputs"] != known[step]["inputs"]
    assert content(fresh.batch("validation", 0)) == held_out
    assert content(other.batch("validation", 0)) == held_out  # every seed is scored on the same
    shapes = {name: shape for name, (_, shape, _) in held_out.items()}
    for batch in (*epoch_of(batches), *epoch_of(batches, 0, "test")):
        assert {name: array.shape for name, array in batch.items()} == shapes
        assert {array.dtype.name for array in batch.values()} == {"int32", "float32"}
        data.check_ids(batch, batches.tokenizer.vocab_size)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_the_size_of_a_batch(data_dir, kind):
    rows = []
    for size in (1, 4, 50):
        found = epoch_of(make(data_dir, kind, sequences_per_batch=size), 0, "validation")
        whole = {name: np.concatenate([b[name] for b in found]) for name in found[0]}
        is_real = whole["index"] >= 0
        assert not whole["weights"][~is_real].any()
        rows.append(content({name: array[is_real] for name, array in whole.items()}))
    assert all(other == rows[0] for other in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_corrupted_anew_each_epoch_and_validation_never(data_dir, kind):
    batches = make(data_dir, kind, sequences_per_batch=500)
    fields = [name for name in ("source", "inputs", "weights") if name in batches.batch("train", 0)]

    def by_document(epoch):
        (batch,) = epoch_of(batches, epoch)
        real = batch["index"] >= 0
        keys = batch["index"][real].tolist()
        rows = [tuple(batch[f][real][i].tobytes() for f in fields) for i in range(len(keys))]
        return dict(zip(keys, rows, strict=True))

    first, second = by_document(0), by_document(1)
    assert len(first) > 50
    assert first.keys() == second.keys()
    assert sum(first[i] != second[i] for i in first) > 0.8 * len(first)


def texts_of(batches, split="train"):
    return [batches.tokenizer.encode(example.target) for example in batches.examples(split)]


def without(ids, *dropped):
    return [int(i) for i in ids if i not in dropped]


def restored(batch, row, reserved):
    """The text of a row of any kind."""
    if "places" in batch:
        ids = batch["inputs"][row].copy()
        real = batch["weights"][row] > 0
        ids[batch["places"][row][real]] = batch["targets"][row][real]
        return without(ids, PAD, reserved[CLS], reserved[SEP])
    target = without(batch["targets"][row], PAD, EOS)
    if "source" not in batch or (batch["source"] == reserved[MASK]).any():
        return target
    source, marks = without(batch["source"][row], PAD, EOS), set(map(reserved.get, SENTINELS))
    if not set(source) & marks:
        return source + target
    spans = {}
    for token in target:
        if token in marks:
            spans[token] = name = []
        else:
            name.append(token)
    return [t for token in source for t in spans.get(token, [token])]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"masked"}))
def test_every_text_is_there_once_an_epoch(data_dir, kind, packed):
    changes = {} if kind == "words" else {"packed": packed}
    batches = make(data_dir, kind, sequence_length=30, **changes)  # some texts are longer
    whole = [token for ids in texts_of(batches) for token in ids]
    for epoch in (0, 3):
        found = []
        for batch in epoch_of(batches, epoch):
            for row in np.flatnonzero(batch["index"] >= 0):
                found.append(restored(batch, row, batches.tokenizer.reserved))
                assert is_part(found[-1], whole)
        assert sorted(t for text in found for t in text) == sorted(whole)
    print(f"{len(found)} texts")


def is_part(piece, whole):
    """Whether a text stands somewhere in the whole."""
    ends = (at for at, token in enumerate(whole) if token == piece[-1])
    return any(whole[max(end + 1 - len(piece), 0) : end + 1] == piece for end in ends)


def pairs_of(batches, split="train", epochs=2):
    """(first text, second text, is_next) of all rows, as they were before masking."""
    sep = batches.tokenizer.reserved[SEP]
    for epoch in range(epochs):
        for batch in epoch_of(batches, epoch, split):
            for row in np.flatnonzero(batch["pairs"]):
                ids, real = batch["inputs"][row].copy(), batch["weights"][row] > 0
                ids[batch["places"][row][real]] = batch["targets"][row][real]
                types, used = batch["types"][row], batch["segments"][row] > 0
                first, second = (ids[used & (types == i)] for i in (0, 1))
                assert first[0] == batches.tokenizer.reserved[CLS]
                assert first[-1] == second[-1] == sep
                assert not np.isin(ids[~used], [sep]).any()
                assert (np.diff(used.astype(int)) <= 0).all()
                yield first[1:-1].tolist(), second[:-1].tolist(), int(batch["is_next"][row])


def test_half_of_the_pairs_are_neighbours_and_the_label_says_which(data_dir):
    source = random_source(num_train=1500)
    batches = make(data_dir, "masked", source, sequence_length=64)
    documents = [tuple(ids) for ids in texts_of(batches)]
    follows = {}
    for number, ids in enumerate(documents):
        follows.setdefault(ids, set()).add(number + 1)
    labels, lengths = [], {0: [], 1: []}
    whole = [t for ids in documents for t in ids]
    ends = np.cumsum([len(ids) for ids in documents])
    for first, second, is_next in pairs_of(batches):
        labels.append(is_next)
        lengths[is_next].append((len(first), len(second), len(first) + len(second)))
        if len(labels) <= 300:
            assert is_part(first, whole)
            together = is_part(first + second, whole)
            assert together == bool(is_next)
    share = np.mean(labels)
    means = {label: np.mean(values, axis=0).round(1) for label, values in lengths.items()}
    print(f"{len(labels)} pairs, {share:.3f} neighbours, mean lengths {means}")
    assert abs(share - 0.5) < 5 * 0.5 / len(labels) ** 0.5
    # Padding must not give the answer away.
    assert abs(means[0][2] - means[1][2]) < 3
    assert ends[-1] == len(whole)


@pytest.mark.parametrize("sequence_length", [47, 48])
def test_letters_leave_room_for_two_texts_in_a_row(data_dir, sequence_length):
    long = [("a " * 80 + "a",) * 2] * 4
    source = Texts(train=long, validation=long, test=long)
    batches = make(data_dir, "masked", source, "characters", sequence_length=sequence_length)
    assert (np.diff(batches.chunks("train").edges)[:-1] >= 2).all()


def test_a_single_text_asks_for_no_neighbour(data_dir):
    texts = [(sentence(i, 4), sentence(i + 50, 4)) for i in range(20)]
    lonely = Texts(train=texts, validation=texts[:1], test=texts[:2])
    batches = make(data_dir, "masked", lonely)
    alone = batches.batch("validation", 0)
    assert not alone["pairs"].any()
    assert alone["weights"][0].any()
    assert alone["types"].max() == 0
    two = batches.batch("test", 0)  # all text is in one chunk: there is nothing else
    assert two["pairs"][0] == two["is_next"][0] or not two["pairs"].any()


def test_only_text_is_hidden_and_as_much_as_asked_for(data_dir):
    for kind in ("masked", "words"):
        batches = make(data_dir, kind, whole_words=False)
        reserved, texts = batches.tokenizer.reserved, set(batches.tokenizer.text_ids().tolist())
        hidden = others = masks = 0
        for batch in epoch_of(batches):
            chosen = batch["weights"] > 0
            row, _ = np.nonzero(chosen)
            assert set(batch["targets"][chosen].tolist()) <= texts
            read = batch["inputs"][row, batch["places"][chosen]]
            masks += (read == reserved[MASK]).sum()
            others += ((read != reserved[MASK]) & (read != batch["targets"][chosen])).sum()
            hidden += chosen.sum()
            special = (1 + batch["types"].max(1) + 1) * (batch["index"] >= 0)
            num_text = batch["segments"].sum(1) - special
            wanted = [num_masked(int(n), 0.15) if n else 0 for n in num_text]
            assert chosen.sum(1).tolist() == wanted
        print(f"{hidden} hidden, {masks / hidden:.3f} as [MASK], {others / hidden:.3f} as another")
        for count, share in ((masks, 0.8), (others, 0.1)):
            assert abs(count - share * hidden) < 5 * (hidden * share * (1 - share)) ** 0.5


def test_encoder_decoders_read_their_target_one_place_later(data_dir):
    for kind in ("spans", "infilling", "rest"):
        batch = make(data_dir, kind).batch("train", 0)
        for row in np.flatnonzero(batch["index"] >= 0):
            length = int(batch["weights"][row].sum())
            targets, inputs = batch["targets"][row], batch["inputs"][row]
            assert (targets[:length] != PAD).all()
            assert not targets[length:].any()
            assert targets[length - 1] == EOS
            assert inputs[:length].tolist() == [BOS, *targets[: length - 1]]
            source = batch["source"][row]
            assert source[(source != PAD).sum() - 1] == EOS


def test_language_models_predict_what_follows_the_prefix(data_dir):
    batches = make(data_dir, "prefix", packed=False)
    for batch in epoch_of(batches)[:5]:
        for row in np.flatnonzero(batch["index"] >= 0):
            used = int(batch["segments"][row].sum())
            inputs, targets = batch["inputs"][row][:used], batch["targets"][row][:used]
            assert inputs[0] == BOS
            assert targets[-1] == EOS
            assert (inputs[1:] == targets[:-1]).all()
            weights = batch["weights"][row]
            given = int((weights[:used] == 0).sum())
            assert weights.tolist() == [0.0] * given + [1.0] * (used - given) + [0.0] * (
                len(weights) - used
            )
            assert 1 <= given < used or used == 2


def test_letters_of_neighbours_are_kept_apart_by_a_space(data_dir):
    texts = [(f"s{i}", f"t{i} u") for i in range(30)]
    source = Texts(train=texts, validation=texts, test=texts)
    for tokenizer, blank in (("characters", True), ("words", False)):
        batches = make(data_dir, "prefix", source, tokenizer)
        row = batches.batch("validation", 0)["inputs"][0]
        assert batches.tokenizer.decode(row).startswith("t0 u t1 u t2 u")
        assert bool(len(batches.joint)) == blank


def test_the_fingerprint_follows_the_options(data_dir):
    changes = {
        "masked": ["seed", "side", "sequence_length", "sequences_per_batch", "pairs", "rate"],
        "spans": ["objective", "packed", "rate", "mean_span", "permute", "sequence_length"],
        "prefix": ["packed", "sequence_length"],
    }
    others = {"seed": 2, "side": "source", "objective": "prefix", "rate": 0.3, "mean_span": 4.0}
    prints = []
    for kind, names in changes.items():
        known = {**COMMON, **KINDS[kind][1]}
        prints.append(make(data_dir, kind).fingerprint())
        for name in names:
            was = known[name]
            other = others[name] if name in others else (2 * was if was > 1 else not was)
            prints.append(make(data_dir, kind, **{name: other}).fingerprint())
        assert make(data_dir, kind).fingerprint() in prints
    assert len(set(prints)) == len(prints)
