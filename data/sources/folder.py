"""Your own text: a folder with train, validation and test as files.

Each split is either one file of `source<TAB>target` lines, NAME.tsv, or two files with the
same number of lines, NAME.<language> (train.it and train.en). Any of them may be compressed
(.gz, .xz). Text is UTF-8, one pair a line.
"""

from collections.abc import Iterable
from pathlib import Path

from data.files import OPENERS, read_lines
from data.sources.base import SPLITS, Example, Source
from errors import ConfigError, DataError


class Folder(Source):
    """Reads text pairs from files that you bring.

    Args:
        path: the folder.
        source_language, target_language: the endings of the file names of a pair, such as
            "it" and "en". TSV files don't need them: the source is the first column.
    """

    def __init__(
        self, cache_dir: str, path: str, source_language: str = "", target_language: str = ""
    ):
        del cache_dir  # nothing to prepare
        self.name = f"folder {path}"
        self.folder = Path(path).expanduser()
        self.source_language, self.target_language = source_language, target_language
        self.languages = [code for code in (source_language, target_language) if code]
        if not path or not self.folder.is_dir():
            raise ConfigError(f"config.task.source.path: {path!r} is not a folder.")
        if len(self.languages) == 1:
            missing = "target_language" if source_language else "source_language"
            raise ConfigError(f"config.task.source.{missing}: give both languages or neither.")
        if self.languages and source_language == target_language:
            raise ConfigError(
                f"config.task.source.target_language: {target_language!r} is the source "
                "language as well; a pair of files has two."
            )
        self.files = {split: self.find(split) for split in SPLITS}

    def read(self, split: str) -> Iterable[Example]:
        files = self.files[split]
        return _read_table(*files) if len(files) == 1 else _read_pair(*files)

    def find(self, split: str) -> tuple[Path, ...]:
        """The one TSV file or the two files of a split.

        Raises:
            DataError: there is none, or the split is there more than once.
        """
        table = self.existing(f"{split}.tsv")
        sides = [self.existing(f"{split}.{code}") for code in self.languages]
        twice = [files for files in (table, *sides) if len(files) > 1]
        if table and any(sides):
            twice.append(table + [file for side in sides for file in side])
        if twice:
            names = ", ".join(file.name for file in twice[0])
            raise DataError(f"{self.folder}: {split} is there more than once ({names}).")
        if table:
            return (table[0],)
        if sides and all(sides):
            return sides[0][0], sides[1][0]
        raise DataError(self.missing(split))

    def existing(self, name: str) -> list[Path]:
        """The files of that name, plain or compressed."""
        paths = [self.folder / f"{name}{ending}" for ending in OPENERS]
        return [path for path in paths if path.is_file()]

    def missing(self, split: str) -> str:
        """The sentence for a split that cannot be found."""
        wanted = f"{split}.tsv"
        if self.languages:
            wanted += f" or {split}.{self.source_language} with {split}.{self.target_language}"
        present = sorted(path.name for path in self.folder.iterdir())
        have = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
        hint = ""
        if not self.languages and any(name.startswith(f"{split}.") for name in present):
            hint = " For a pair of files give source_language and target_language."
        return (
            f"{self.folder}: no {wanted} (each may end in .gz or .xz).{hint} "
            f"The folder has: {have or 'nothing'}."
        )


def _read_table(path: Path) -> list[Example]:
    examples = []
    for row, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        if len(fields) != 2:
            raise DataError(
                f"{path}:{row}: {len(fields) - 1} tabs, expected one between source and target."
            )
        source, target = fields[0].strip(), fields[1].strip()
        if not source or not target:
            raise DataError(f"{path}:{row}: the {'target' if source else 'source'} is empty.")
        examples.append(Example(source, target))
    return examples


def _read_pair(source_path: Path, target_path: Path) -> list[Example]:
    sides = [[line.strip() for line in read_lines(path)] for path in (source_path, target_path)]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{source_path} has {len(sides[0])} lines and {target_path.name} has "
            f"{len(sides[1])}; line n of one is the translation of line n of the other."
        )
    for path, lines in zip((source_path, target_path), sides, strict=True):
        if "" in lines:
            raise DataError(f"{path}:{lines.index('') + 1}: the line is empty.")
    return [Example(source, target) for source, target in zip(*sides, strict=True)]
