"""Bad data and bad options of sources: one line that names the file and row, or the field."""

import gzip
import lzma
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

import data
from errors import ConfigError, DataError

GOOD = b"uno\tone\ndue\ttwo\ntre\tthree\n"
TABLES = {"train.tsv": GOOD, "validation.tsv": GOOD, "test.tsv": GOOD}
PAIRS = {
    f"{split}.{language}": text
    for split in data.SPLITS
    for language, text in (("it", b"uno\ndue\ntre\n"), ("en", b"one\ntwo\nthree\n"))
}
LANGUAGES = {"source_language": "it", "target_language": "en"}
LONG = b"".join(b"riga %d\trow %d\n" % (i, i) for i in range(5000))

# what is wrong: (files that replace good ones (None: removed), what the message must hold)
BAD_TABLES = {
    "no tab": ({"train.tsv": b"uno\tone\ndue two\n"}, "train.tsv:2: 0 tabs"),
    "spaces for tabs": ({"test.tsv": b"uno    one\n"}, "test.tsv:1: 0 tabs"),
    "two tabs": ({"train.tsv": GOOD + b"a\tb\tc\n"}, "train.tsv:4: 2 tabs"),
    "tab at the end": ({"train.tsv": b"uno\tone\t\n"}, "train.tsv:1: 2 tabs"),
    "blank row": ({"train.tsv": b"uno\tone\n\ndue\ttwo\n"}, "train.tsv:2: 0 tabs"),
    "blank last row": ({"train.tsv": GOOD + b"\n"}, "train.tsv:4: 0 tabs"),
    "no source": (
        {"validation.tsv": b"uno\tone\n\ttwo\n"},
        "validation.tsv:2: the source is empty",
    ),
    "no target": ({"validation.tsv": b"uno\t\n"}, "validation.tsv:1: the target is empty"),
    "white source": ({"train.tsv": GOOD + b"  \tfour\n"}, "train.tsv:4: the source is empty"),
    "white target": (
        {"train.tsv": GOOD + "quattro\t\u00a0\u2003\n".encode()},
        "train.tsv:4: the target is empty",
    ),
    "late row": ({"train.tsv": LONG + b"bad\n" + LONG}, "train.tsv:5001: 0 tabs"),
    "Latin-1": (
        {"train.tsv": GOOD + "perch\u00e9\twhy\n".encode("latin-1")},
        "train.tsv:4: not UTF-8",
    ),
    "UTF-16": ({"train.tsv": "uno\tone\n".encode("utf-16")}, "train.tsv:1: not UTF-8"),
    "cut UTF-8": ({"test.tsv": GOOD + "a\té".encode()[:-1]}, "test.tsv:4: not UTF-8"),
    "late byte": ({"train.tsv": LONG + b"a\t\xff\n"}, "train.tsv:5001: not UTF-8 (byte 0xff)"),
    "NUL": ({"train.tsv": GOOD + b"a\tb\x00c\n"}, "train.tsv:4: a NUL"),
    "empty file": ({"validation.tsv": b""}, "validation.tsv: the file is empty"),
    "only a mark": ({"test.tsv": b"\xef\xbb\xbf"}, "test.tsv: the file is empty"),
    "only a line end": ({"test.tsv": b"\n"}, "test.tsv:1: 0 tabs"),
    "empty gz": (
        {"test.tsv": None, "test.tsv.gz": gzip.compress(b"")},
        "test.tsv.gz: the file is e",
    ),
    "cut gz": (
        {"train.tsv": None, "train.tsv.gz": gzip.compress(LONG)[:-99]},
        "train.tsv.gz: not a whole",
    ),
    "cut xz": (
        {"train.tsv": None, "train.tsv.xz": lzma.compress(LONG)[:-99]},
        "train.tsv.xz: not a whole",
    ),
    "no gz": ({"train.tsv": None, "train.tsv.gz": GOOD}, "train.tsv.gz: not a whole"),
    "no xz": ({"train.tsv": None, "train.tsv.xz": GOOD}, "train.tsv.xz: not a whole"),
    "row in gz": (
        {"train.tsv": None, "train.tsv.gz": gzip.compress(b"x\n")},
        "train.tsv.gz:1: 0 tabs",
    ),
    "no train": ({"train.tsv": None}, "no train.tsv"),
    "no validation": ({"validation.tsv": None, "valid.tsv": GOOD}, "no validation.tsv"),
    "no test": ({"test.tsv": None}, "no test.tsv"),
    "nothing": (dict.fromkeys(TABLES), "The folder has: nothing"),
    "wrong ending": ({"test.tsv": None, "test.tsv.bz2": GOOD}, "no test.tsv"),
    "twice": ({"train.tsv.gz": gzip.compress(GOOD)}, "train is there more than once"),
}
BAD_PAIRS = {
    "one line less": ({"train.en": b"one\ntwo\n"}, "train.it has 3 lines and train.en has 2"),
    "one line more": ({"test.en": b"1\n2\n3\n4\n"}, "test.it has 3 lines and test.en has 4"),
    "empty line": ({"train.it": b"uno\n\ntre\n"}, "train.it:2: the line is empty"),
    "white line": ({"train.en": b"one\ntwo\n \t \n"}, "train.en:3: the line is empty"),
    "empty side": ({"validation.en": b""}, "validation.en: the file is empty"),
    "bad byte": ({"validation.it": b"uno\nd\xe9\ntre\n"}, "validation.it:2: not UTF-8"),
    "NUL in a side": ({"test.it": b"\x00\n\n\n"}, "test.it:1: a NUL"),
    "side missing": ({"train.en": None}, "no train.tsv or train.it with train.en"),
    "both missing": ({"test.it": None, "test.en": None}, "no test.tsv or test.it with test.en"),
    "side twice": ({"train.it.gz": gzip.compress(b"x\n")}, "(train.it, train.it.gz)"),
    "pair and table": ({"train.tsv": GOOD}, "(train.tsv, train.it, train.en)"),
}
# options of a source block, and the field and words that the message must hold
BAD_OPTIONS = {
    "no such folder": ({"name": "folder", "path": "/no/such"}, "source.path: '/no/such' is not"),
    "no path": ({"name": "folder"}, "source.path"),
    "empty path": ({"name": "folder", "path": ""}, "source.path: '' is not a folder"),
    "path is a number": ({"name": "folder", "path": 3}, "source.path"),
    "a file for a folder": ({"name": "folder", "path": __file__}, "source.path"),
    "one language": ({"name": "folder", "path": "/", "source_language": "it"}, "target_language"),
    "the other": ({"name": "folder", "path": "/", "target_language": "it"}, "source_language"),
    "one language twice": (
        {"name": "folder", "path": "/", "source_language": "it", "target_language": "it"},
        "source.target_language: 'it'",
    ),
    "no name": ({"path": "/"}, "config.task.source"),
    "unknown source": (
        {"name": "bibel"},
        "source.name: Unknown source: 'bibel'. Did you mean 'bible'",
    ),
    "unknown option": ({"name": "copy", "lenght": 3}, "'lenght'"),
    "caller's option": ({"name": "copy", "cache_dir": "/"}, "'cache_dir'"),
    "unknown language": ({"name": "bible", "source_language": "itt"}, "Did you mean 'it'"),
    "same language": ({"name": "bible", "target_language": "it"}, "source.target_language: 'it'"),
    "no examples": ({"name": "copy", "num_train": 0}, "source.num_train"),
    "negative seed": ({"name": "sort", "seed": -1}, "source.seed"),
    "true for a number": ({"name": "sort", "num_test": True}, "source.num_test"),
    "half a symbol": ({"name": "reverse", "alphabet_size": 2.5}, "source.alphabet_size"),
    "no symbols": ({"name": "reverse", "alphabet_size": 0}, "source.alphabet_size"),
    "lengths crossed": ({"name": "copy", "min_length": 9, "max_length": 3}, "source.max_length: 3"),
    "digits crossed": ({"name": "addition", "min_length": 5}, "source.max_length: 4"),
    "few strings": ({"name": "copy", "alphabet_size": 2, "max_length": 4}, "too few different"),
    "few sums": ({"name": "addition", "max_length": 1}, "num_validation=256"),
    "huge lexicon": ({"name": "toy_language", "num_nouns": 10**6}, "at most"),
    "no clauses": ({"name": "toy_language", "max_clauses": 0}, "source.max_clauses"),
    "no dataset": ({"name": "tfds"}, "source.dataset"),
}


def contents(folder):
    """All files below a folder with their content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build_and_read(block, cache_dir):
    source = data.build_source(block, cache_dir)
    for split in data.SPLITS:
        source.pairs(split)


def refusal(folder, block, kind):
    """The message when the source is built and read; checks that it is one line and harmless."""
    (folder / "cache").mkdir()
    before = contents(folder)
    with pytest.raises(kind) as caught:
        build_and_read(block, folder / "cache")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert caught.value.exit_code == {DataError: 65, ConfigError: 64}[kind]
    assert contents(folder) == before
    return message


def fill(folder, good, changes):
    """A folder with the good files, some of them replaced or removed."""
    folder.mkdir()
    for name, content in {**good, **changes}.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return str(folder)


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused(tmp_path, case):
    changes, expected = BAD_TABLES[case]
    path = fill(tmp_path / "text", TABLES, changes)
    message = refusal(tmp_path, {"name": "folder", "path": path}, DataError)
    assert expected in message
    assert path in message


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_a_bad_pair_of_files_is_refused(tmp_path, case):
    changes, expected = BAD_PAIRS[case]
    path = fill(tmp_path / "text", PAIRS, changes)
    message = refusal(tmp_path, {"name": "folder", "path": path, **LANGUAGES}, DataError)
    assert expected in message
    assert path in message


def test_a_pair_of_files_without_languages_is_refused_with_the_options(tmp_path):
    path = fill(tmp_path / "text", PAIRS, {})
    message = refusal(tmp_path, {"name": "folder", "path": path}, DataError)
    assert "give source_language and target_language" in message


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_refused(tmp_path, case):
    block, expected = BAD_OPTIONS[case]
    message = refusal(tmp_path, block, ConfigError)
    assert expected in message
    assert message.startswith("config.task.source")


def test_a_split_without_examples_is_refused():
    class Empty(data.Source):
        def read(self, split):
            return []

    with pytest.raises(DataError, match="'test' has no examples"):
        Empty().pairs("test")


def test_unknown_splits_are_refused():
    source = data.build_source({"name": "copy", "num_train": 9}, "")
    for split in ("valid", "", "TRAIN", "train[:10]"):
        with pytest.raises(DataError, match="Known: train, validation, test"):
            source.pairs(split)


with tfds.core.registered.skip_registration():

    class Corpus(tfds.core.GeneratorBasedBuilder):
        """Two texts, a number, and a row with an empty text."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kinds = {"it": tfds.features.Text(), "en": tfds.features.Text()}
            features = tfds.features.FeaturesDict({**kinds, "n": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {
                "train": [(i, {"it": "uno", "en": "one", "n": i}) for i in range(20)],
                "holes": [(i, {"it": "uno", "en": " "[i:], "n": i}) for i in range(2)],
            }

        def _generate_examples(self):
            raise NotImplementedError


# (option, value, class of the error, what the message must hold)
BAD_PREPARED = (
    ("dataset", "corpse", ConfigError, "source.dataset: TFDS cannot find 'corpse'"),
    ("dataset", "corpus:9.9.9", ConfigError, "source.dataset: TFDS cannot find 'corpus:9.9.9'"),
    ("data_dir", "/no/such", ConfigError, "TFDS cannot find 'corpus' in /no/such"),
    ("source_key", "itt", DataError, "'itt'. Did you mean 'it'? Known: en, it, n."),
    ("target_key", "n", DataError, "row 0: feature 'n' is int"),
    ("train_split", "trian", DataError, "split 'trian'"),
    ("train_split", "train[:0]", DataError, "cannot read the split 'train[:0]'"),
    ("validation_split", "train[:", DataError, "split 'train[:'"),
    ("test_split", "holes", DataError, "row 0: feature 'en' is empty"),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of a TFDS data set that can be read."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    Corpus(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def prepared_block(folder):
    keys = {"source_key": "it", "target_key": "en"}
    splits = {f"{split}_split": "train" for split in data.SPLITS}
    return {"name": "tfds", "dataset": "corpus", "data_dir": str(folder), **keys, **splits}


@pytest.mark.parametrize(("option", "value", "kind", "expected"), BAD_PREPARED)
def test_a_bad_prepared_data_set_is_refused(tmp_path, corpus, option, value, kind, expected):
    assert expected in refusal(tmp_path, {**prepared_block(corpus), option: value}, kind)


def test_a_data_set_in_a_format_that_needs_tensorflow_is_refused(tmp_path, corpus):
    folder = shutil.copytree(corpus, tmp_path / "tfds")
    info = next(folder.rglob("dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    message = refusal(tmp_path, prepared_block(folder), DataError)
    assert "must be prepared with file_format='array_record'" in message


def test_there_are_many_cases():
    cases = len(BAD_TABLES) + len(BAD_PAIRS) + len(BAD_OPTIONS) + len(BAD_PREPARED)
    print(f"{cases} cases of bad input")
    assert cases >= 60
