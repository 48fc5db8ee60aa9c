"""What every source of text pairs is: three splits of examples and a fingerprint."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from errors import DataError

SPLITS = ("train", "validation", "test")


class Example(NamedTuple):
    """A text and its translation.

    `alignment` holds (source word, target word) index pairs, counted from 0 over words
    divided by spaces; None where nobody knows it. `texts` holds the parts of a source that has
    several, such as a premise and a hypothesis.
    """

    source: str
    target: str
    alignment: tuple[tuple[int, int], ...] | None = None
    texts: tuple[str, ...] = ()


class Source:
    """Text pairs in the splits train, validation and test.

    A subclass gives `read`. Its constructor takes `cache_dir`, a folder where it may keep
    what it prepares, and its options, which stand in the config as config.task.source.

    Attributes:
        name: what messages call it.
        source_language, target_language: codes such as "it", or "" where there is none.
    """

    name = "source"
    source_language = ""
    target_language = ""

    def read(self, split: str) -> Iterable[Example]:
        """The examples of a split in their order. May be slow; callers use `pairs`."""
        raise NotImplementedError

    def pairs(self, split: str) -> list[Example]:
        """The examples of a split, read once and kept.

        Raises:
            DataError: no such split, no example in it, or an example with an empty side.
        """
        if split not in SPLITS:
            raise DataError(f"{self.name} has no split {split!r}. Known: {', '.join(SPLITS)}.")
        kept = self.__dict__.setdefault("_pairs", {})
        if split not in kept:
            examples = list(self.read(split))
            if not examples:
                raise DataError(f"{self.name}: the split {split!r} has no examples.")
            kept[split] = examples
        return kept[split]

    def split_fingerprint(self, split: str) -> str:
        """A digest of the text of one split: the same text gives the same one."""
        known = self.__dict__.setdefault("_fingerprints", {})
        if split not in known:
            text = hashlib.sha256()
            for example in self.pairs(split):
                text.update(f"{example.source}\t{example.target}\n".encode())
            known[split] = text.hexdigest()
        return known[split]

    def fingerprint(self) -> str:
        """A digest of the text of all splits, wherever and however it is stored."""
        digests = "".join(self.split_fingerprint(split) for split in SPLITS)
        return hashlib.sha256(digests.encode()).hexdigest()
