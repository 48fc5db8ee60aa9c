"""Batches of labelled texts: what is read of each form, by hand, and what all batches promise."""

import numpy as np
import pytest

import data
from data import BOS, Example, Source
from data.labelled_batches import RESERVED
from data.sources.labelled import labelled
from errors import ConfigError, DataError

WORDS = {word: i for i, word in enumerate("abcdefgh", 4)}
CLS, SEP = 12, 13
OPTIONS = {
    "seed": 0,
    "form": "text",
    "layout": "language_model",
    "max_length": 9,
    "texts_per_batch": 2,
    "num_buckets": 1,
    "fraction": 1.0,
}


class Labelled(Source):
    """Given examples, the same in each split unless told otherwise."""

    name = "given"

    def __init__(self, *rows: tuple, **splits: list):
        self.rows = {split: splits.get(split, rows) for split in data.SPLITS}

    def read(self, split: str) -> list[Example]:
        return [labelled(texts, label) for *texts, label in self.rows[split]]


def batches(source, folder="", **options):
    tokenizer = data.TOKENIZERS["words"].train(WORDS)
    tokenizer._set(list(WORDS))
    tokenizer = tokenizer.reserve(RESERVED)
    assert [tokenizer.reserved[name] for name in RESERVED] == [CLS, SEP]
    return data.LabelledBatches(source, tokenizer, folder, **{**OPTIONS, **options})


def ids(text: str) -> list[int]:
    names = {"<": BOS, "!": CLS, "|": SEP}
    return [names.get(letter, WORDS.get(letter)) for letter in text]


def read(batch: dict, row: int, view: int = 0) -> tuple[list[int], list[int]]:
    size = int(batch["segments"][row, view].sum())
    assert (batch["segments"][row, view] == (np.arange(batch["inputs"].shape[2]) < size)).all()
    assert not batch["inputs"][row, view, size:].any()
    return tuple(batch[name][row, view, :size].tolist() for name in ("inputs", "types"))


PAIR = [("a b", "c", "no"), ("d", "e f g", "yes")]
LAYOUTS = [
    ("encoder", [("a b", "no")], ("!ab|",), (4,), 0),
    ("language_model", [("a b", "no")], ("<ab!",), (4,), 0),
    ("encoder", PAIR, ("!ab|c|", "!d|efg|"), (4, 3), 1),
    ("language_model", PAIR, ("<ab|c!", "<d|efg!"), (4, 3), 1),
]


@pytest.mark.parametrize(("layout", "rows", "texts", "seconds", "label"), LAYOUTS)
def test_texts_with_their_special_tokens(layout, rows, texts, seconds, label):
    made = batches(Labelled(*rows), layout=layout)
    batch = made.batch("validation", 0)
    assert batch["inputs"].shape[1] == made.num_views == 1
    for row, (text, second) in enumerate(zip(texts, seconds, strict=True)):
        found, types = read(batch, row)
        assert found == ids(text)
        assert types == [int(i >= second) if len(rows[0]) > 2 else 0 for i in range(len(text))]
    assert made.labels == tuple(sorted({row[-1] for row in rows}))
    assert batch["labels"][len(rows) - 1] == label
    assert batch["weights"].tolist() == [1.0, float(len(rows) > 1)]
    assert batch["index"].tolist() == [0, 1 if len(rows) > 1 else -1]


def test_similarity_is_read_in_both_orders_by_a_language_model():
    source = Labelled(("a", "b c", "2.5"), ("d", "e", "-1"))
    batch = batches(source, form="similarity").batch("test", 0)
    assert [read(batch, 0, view)[0] for view in (0, 1)] == [ids("<a|bc!"), ids("<bc|a!")]
    assert batch["labels"].tolist() == [2.5, -1.0]
    once = batches(source, form="similarity", layout="encoder").batch("test", 0)
    assert once["inputs"].shape[1] == 1


def test_each_option_of_a_choice_follows_the_context():
    source = Labelled(("a b", "c", "d e", "f", "1"), ("g", "h", "a", "b", "2"))
    batch = batches(source, form="choice").batch("test", 0)
    assert [read(batch, 0, v)[0] for v in range(3)] == [
        ids("<ab|c!"),
        ids("<ab|de!"),
        ids("<ab|f!"),
    ]
    assert batch["labels"].tolist() == [1, 2]


def test_a_tag_counts_at_the_first_token_of_its_word():
    source = Labelled(("aab b aa", "N V N"), ("b", "V"))
    tokenizer = data.TOKENIZERS["characters"].train(["aabb"]).reserve(RESERVED)
    options = {**OPTIONS, "form": "tagging"}
    made = data.LabelledBatches(source, tokenizer, "", **options)
    batch = made.batch("test", 0)
    assert made.labels == ("N", "V")
    assert np.flatnonzero(batch["weights"][0]).tolist() == [1, 4, 5]
    assert batch["labels"][0, [1, 4, 5]].tolist() == [0, 1, 0]
    assert np.flatnonzero(batch["weights"][1]).tolist() == [1]
    short = data.LabelledBatches(source, tokenizer, "", **{**options, "max_length": 6})
    assert np.flatnonzero(short.batch("test", 0)["weights"][0]).tolist() == [1, 4]
    tokenizer = data.TOKENIZERS["characters"].train(["a b"]).reserve(RESERVED)
    batch = data.LabelledBatches(source, tokenizer, "", **{**options, "max_length": 12})
    batch = batch.batch("test", 0)  # the space between two words is a letter as well
    assert tokenizer.decode(batch["inputs"][0, 0]) == "aab b aa [CLS]"
    assert np.flatnonzero(batch["weights"][0]).tolist() == [1, 5, 7]


def test_the_longest_text_loses_its_end():
    source = Labelled(("a b c d e f", "g h", "x"))
    found, _ = read(batches(source, max_length=8).batch("test", 0), 0)
    assert found == ids("<abc|gh!")
    alone = Labelled(("a b c d e f g h", "x"))
    assert read(batches(alone, max_length=8).batch("test", 0), 0)[0] == ids("<abcdef!")
    both = Labelled(("a b c d e f", "x"), ("a b c d e f g", "x"))
    made = batches(both, max_length=8)
    assert [made.counts(split).truncated for split in ("train", "test")] == [0, 1]


def many(count: int) -> Labelled:
    random = np.random.default_rng(0)
    letters = list(WORDS)
    texts = [" ".join(random.choice(letters, random.integers(1, 30))) for _ in range(count)]
    return Labelled(*[(text, str(len(text.split()))) for text in texts])


def test_an_epoch_has_each_example_once_and_any_step_at_any_time():
    source = many(50)
    made = batches(source, texts_per_batch=4, num_buckets=3, max_length=40)
    size = made.num_batches("train")
    rows = {}
    for step in range(2 * size):
        batch = made.batch("train", step)
        assert batch["inputs"].shape[0] == 4
        for row, example in enumerate(batch["index"]):
            if example >= 0:
                rows.setdefault(step // size, []).append(int(example))
                label = source.pairs("train")[example].target
                assert made.labels[batch["labels"][row]] == label
    assert sorted(rows[0]) == sorted(rows[1]) == list(range(50))
    assert rows[0] != rows[1]
    assert len({made.batch("train", i)["inputs"].shape for i in range(size)}) == 3
    again = batches(many(50), texts_per_batch=4, num_buckets=3, max_length=40)
    for name, value in again.batch("train", size + 2).items():
        np.testing.assert_array_equal(value, made.batch("train", size + 2)[name])
    assert again.fingerprint() == made.fingerprint() != batches(many(50)).fingerprint()
    in_order = [made.batch("test", i)["index"] for i in range(made.num_batches("test"))]
    kept = np.concatenate(in_order)
    assert sorted(kept[kept >= 0]) == list(range(50))


def test_a_smaller_part_of_the_labels_is_in_a_larger_one():
    def part(fraction, seed=0):
        made = batches(many(100), fraction=fraction, seed=seed)
        steps = range(made.num_batches("train"))
        return {int(i) for step in steps for i in made.batch("train", step)["index"] if i >= 0}

    ten, half = part(0.1), part(0.5)
    assert (len(ten), len(half), len(part(0.001))) == (10, 50, 1)
    assert ten < half < part(1.0)
    assert ten != part(0.1, seed=1)
    assert batches(many(100), fraction=0.1).counts("test").examples == 100


WRONG = [
    (
        {"form": "choice"},
        [("a", "b", "0")],
        ConfigError,
        "needs examples of 3 to 99 labelled texts",
    ),
    ({"form": "tagging"}, [("a b", "N")], DataError, "1 tags for 2 words"),
    ({"form": "similarity"}, [("a", "b", "much")], DataError, "'much' is not a number"),
    ({"form": "choice"}, [("a", "b", "c", "2")], DataError, r"'2' is not one of \['0', '1'\]"),
    ({}, [("a", "x"), ("a", "b", "y")], DataError, "example 2: 2 texts, expected 1"),
]


@pytest.mark.parametrize(("options", "rows", "error", "message"), WRONG)
def test_examples_that_do_not_fit_are_one_line(options, rows, error, message):
    with pytest.raises(error, match=message) as caught:
        batches(Labelled(*rows), **options).batch("train", 0)
    assert "\n" not in str(caught.value)


def test_a_label_that_training_has_not_is_named():
    source = Labelled(("a", "x"), test=[("a", "x"), ("b", "z")])
    with pytest.raises(DataError, match="given: test, example 2: the label 'z' is not one of"):
        batches(source)  # before anything is trained
    numbers = Labelled(*[("a", str(i)) for i in (10, 9, 2)], ("a", "b"))
    assert batches(numbers).labels == ("2", "9", "10", "b")
