"""Any data set that TFDS has already prepared on this machine, read without TensorFlow."""

from collections.abc import Iterable
from typing import Any

from data.sources.base import Example, Source
from errors import ConfigError, DataError
from registry import unknown

ROWS_PER_BLOCK = 1024


class PreparedTFDS(Source):
    """Two text features of a prepared TFDS data set.

    It must have been prepared with file_format="array_record": the default tfrecord format
    cannot be read without TensorFlow.

    Args:
        dataset: the name, such as "my_corpus", "my_corpus/it_en" or "my_corpus/it_en:1.0.0".
        data_dir: where TFDS keeps its data sets; "" for the default of TFDS.
        source_key, target_key: the names of the features with the texts.
        train_split, validation_split, test_split: names or slices, such as "train[:90%]".
    """

    def __init__(
        self,
        cache_dir: str,
        dataset: str,
        data_dir: str = "",
        source_key: str = "source",
        target_key: str = "target",
        train_split: str = "train",
        validation_split: str = "validation",
        test_split: str = "test",
    ):
        del cache_dir  # TFDS has a folder of its own
        self.name = f"tfds {dataset}"
        self.dataset, self.data_dir = dataset, data_dir
        self.source_key, self.target_key = source_key, target_key
        self.splits = {"train": train_split, "validation": validation_split, "test": test_split}

    def read(self, split: str) -> Iterable[Example]:
        wanted = self.splits[split]
        return read_prepared(self.builder(), wanted, self.source_key, self.target_key, self.name)

    def builder(self) -> Any:
        """The TFDS builder of the data set.

        Raises:
            ConfigError: TFDS finds no such data set there.
        """
        import tensorflow_datasets as tfds  # slow to import, and optional elsewhere

        place = self.data_dir or "the default folder of TFDS"
        try:
            return tfds.builder(self.dataset, data_dir=self.data_dir or None, try_gcs=False)
        except Exception as error:  # TFDS raises what it likes, over many lines
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise ConfigError(
                f"config.task.source.dataset: TFDS cannot find {self.dataset!r} in {place} "
                f"({reason})."
            ) from error


def read_prepared(
    builder: Any, split: str, source_key: str, target_key: str, name: str
) -> list[Example]:
    """Reads two text features of a split, in the stored order; see prepared_rows."""
    rows = prepared_rows(builder, split, (source_key, target_key), name)
    return [
        Example(
            text_of(row[source_key], name, source_key, number),
            text_of(row[target_key], name, target_key, number),
        )
        for number, row in enumerate(rows)
    ]


def prepared_rows(builder: Any, split: str, keys: Iterable[str], name: str) -> list[dict]:
    """Reads a split through Grain, in the stored order.

    Args:
        builder: a TFDS builder whose data are prepared.
        split: a split or a slice of one, as TFDS writes it.
        keys: features that there must be.
        name: what messages call the data set.

    Raises:
        DataError: not prepared, prepared in another format, damaged, or no such split or
            feature.
    """
    import grain  # not needed for text that doesn't come from TFDS

    features = builder.info.features
    for key in keys:
        if features is None or key not in features:
            raise DataError(f"{name}: {unknown('feature', key, features or ())}")
    try:
        rows = builder.as_data_source(split=split)
    except Exception as error:  # TFDS raises what it likes, over many lines
        known = ", ".join(sorted(builder.info.splits)) or "none; the data set is not prepared"
        raise DataError(
            f"{name}: cannot read the split {split!r} ({first_line(error)}). "
            f"Splits: {known}. It must be prepared with file_format='array_record'."
        ) from error
    try:
        return [row for block in grain.MapDataset.source(_Blocks(rows)) for row in block]
    except Exception as error:  # so does the reader of array_record files
        raise DataError(
            f"{name}: {builder.data_dir} is damaged ({first_line(error)}). "
            "Remove the folder and prepare the data set again."
        ) from error


class _Blocks:
    """A TFDS data source in blocks of rows: Grain alone asks row by row, four times slower."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return -(-len(self.rows) // ROWS_PER_BLOCK)

    def __getitem__(self, block: int) -> list[dict]:
        start = block * ROWS_PER_BLOCK
        return self.rows.__getitems__(range(start, min(start + ROWS_PER_BLOCK, len(self.rows))))


def text_of(value: Any, name: str, key: str, row: int) -> str:
    """A feature of a row as one line of text; raises DataError if it is none."""
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: row {row}: feature {key!r} is not UTF-8.") from error
    if not isinstance(text, str):
        kind = type(value).__name__
        raise DataError(f"{name}: row {row}: feature {key!r} is {kind}, expected text.")
    if not text.strip() or "\0" in text:
        problem = "holds a NUL" if "\0" in text else "is empty"
        raise DataError(f"{name}: row {row}: feature {key!r} {problem}.")
    return " ".join(text.split("\n")).strip()


def first_line(error: Exception) -> str:
    """What an error says, in one line and not too long."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
