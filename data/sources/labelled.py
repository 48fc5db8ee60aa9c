"""Labelled texts: a folder of tables with a header, and how every labelled example looks.

The label is the target and the texts are the source, joined by a bar, so that an
encoder-decoder can read the text and write the label; a classifier reads `Example.texts`.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data.files import OPENERS, read_lines
from data.sources.base import SPLITS, Example, Source
from errors import ConfigError, DataError
from registry import unknown

SEPARATOR = " | "
FORMATS = (".tsv", ".csv")


def labelled(texts: Sequence[str], label: str) -> Example:
    """The texts, each as one line, and their label."""
    texts = tuple(" ".join(text.split()) for text in texts)
    return Example(SEPARATOR.join(texts), label, texts=texts)


class LabelledFolder(Source):
    """Tables that you bring: train, validation and test as .tsv or .csv, also .gz and .xz.

    The first line names the columns. A .csv may quote fields, a .tsv holds them as they are.

    Args:
        path: the folder.
        text_columns: names of the columns with the texts, in the order in which they are read.
        label_column: name of the column with the label: a word, a number, for multiple choice
            the number of the right text behind the first (from 0), for tagging a tag a word.
    """

    def __init__(
        self,
        cache_dir: str,
        path: str,
        text_columns: tuple[str, ...] = ("text",),
        label_column: str = "label",
    ):
        del cache_dir  # nothing to prepare
        self.name = f"labelled folder {path}"
        self.folder = Path(path).expanduser()
        if not path or not self.folder.is_dir():
            raise ConfigError(f"config.task.source.path: {path!r} is not a folder.")
        if not text_columns:
            raise ConfigError("config.task.source.text_columns: name at least one column.")
        self.columns = (*text_columns, label_column)
        self.files = {split: self.find(split) for split in SPLITS}

    def find(self, split: str) -> Path:
        """The one table of a split.

        Raises:
            DataError: there is none, or more than one.
        """
        names = [f"{split}{form}{ending}" for form in FORMATS for ending in OPENERS]
        found = [self.folder / name for name in names if (self.folder / name).is_file()]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(file.name for file in found)
            raise DataError(f"{self.folder}: {split} is there more than once ({listed}).")
        present = ", ".join(sorted(file.name for file in self.folder.iterdir())[:12]) or "nothing"
        raise DataError(
            f"{self.folder}: no {split}.tsv or {split}.csv (each may end in .gz or .xz). "
            f"The folder has: {present}."
        )

    def read(self, split: str) -> Iterable[Example]:
        path = self.files[split]
        rows = _rows(path)
        _, header = next(rows)
        for column in self.columns:
            if column not in header:
                raise DataError(f"{path}:1: {unknown('column', column, header)}")
        places = [header.index(column) for column in self.columns]
        for number, fields in rows:
            if len(fields) != len(header):
                raise DataError(f"{path}:{number}: {len(fields)} fields, expected {len(header)}.")
            chosen = [fields[place].strip() for place in places]
            if "" in chosen:
                empty = self.columns[chosen.index("")]
                raise DataError(f"{path}:{number}: the column {empty!r} is empty.")
            yield labelled(chosen[:-1], chosen[-1])


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with the numbers of their last lines."""
    lines = read_lines(path)
    if ".tsv" in path.suffixes[-2:]:
        yield from ((number, line.split("\t")) for number, line in enumerate(lines, 1))
        return
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: no CSV ({error}).") from error
