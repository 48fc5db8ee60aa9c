"""The Bible, verse by verse, in any two of six public-domain texts: the default data."""

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from data.files import locked, storage_errors
from data.sources.base import Example, Source
from data.sources.prepared import first_line, read_prepared
from errors import ConfigError, DataError, SeqlabError

Language = Literal["it", "en", "fr", "ru", "es", "en-kjv"]


class Bible(Source):
    """29,701 verses to train on; 1 Corinthians and Ruth (522) and John (879) are held out.

    Prepared once with TFDS under `cache_dir`; see bible_builder.py for texts and cleaning.

    Args:
        source_language, target_language: two of it (Diodati 1649), en (World English Bible),
            fr (Segond 1910), ru (Synodal 1876), es (Reina-Valera 1909), en-kjv (King James).
    """

    def __init__(
        self,
        cache_dir: str,
        source_language: Language = "it",
        target_language: Language = "en",
    ):
        if source_language == target_language:
            raise ConfigError(
                f"config.task.source.target_language: {target_language!r} is the source "
                "language as well; choose another."
            )
        self.name = f"bible {source_language}-{target_language}"
        self.source_language, self.target_language = source_language, target_language
        self.cache_dir = Path(cache_dir)

    def read(self, split: str) -> Iterable[Example]:
        from data.sources.bible_builder import NUM_VERSES

        builder = self.prepare()
        examples = read_prepared(builder, split, "source", "target", self.name)
        if len(examples) != NUM_VERSES[split]:
            raise DataError(
                f"{self.name}: {builder.data_dir} has {len(examples)} verses for {split}, "
                f"expected {NUM_VERSES[split]}. Remove the folder; it is made again."
            )
        return examples

    def prepare(self) -> Any:
        """The TFDS builder, its data set made if it isn't there yet.

        Raises:
            DataError: the text is not installed (with the command that does it) or not what
                it should be, or what was prepared is damaged.
        """
        import tensorflow_datasets as tfds  # slow to import, and not needed by other sources

        from data.sources.bible_builder import BiblePairs

        tfds.disable_progress_bar()
        folder = self.cache_dir / "tensorflow_datasets"
        config = f"{self.source_language}_{self.target_language}"
        with locked(folder / f"bible_{config}"), storage_errors(f"write {folder}"):
            try:
                builder = BiblePairs(data_dir=folder, config=config, file_format="array_record")
                with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to results
                    builder.download_and_prepare()
            except (SeqlabError, OSError):
                raise
            except Exception as error:  # TFDS raises what it likes, over many lines
                raise DataError(
                    f"{self.name}: {folder / 'bible_pairs' / config} cannot be used "
                    f"({first_line(error)}). Remove the folder; it is made again."
                ) from error
        return builder
