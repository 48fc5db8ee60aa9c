"""Any data set with texts and a label that TFDS has already prepared on this machine."""

from collections.abc import Iterable
from typing import Any

from data.sources.base import Example
from data.sources.labelled import labelled
from data.sources.prepared import PreparedTFDS, prepared_rows, text_of
from errors import ConfigError


class PreparedLabels(PreparedTFDS):
    """Text features and a label feature of a prepared TFDS data set.

    Args:
        dataset, data_dir, train_split, validation_split, test_split: as of source "tfds".
        text_keys: the names of the features with the texts.
        label_key: the name of the feature with the label: a class, a number or a text.
    """

    def __init__(
        self,
        cache_dir: str,
        dataset: str,
        data_dir: str = "",
        text_keys: tuple[str, ...] = ("text",),
        label_key: str = "label",
        train_split: str = "train",
        validation_split: str = "validation",
        test_split: str = "test",
    ):
        splits = (train_split, validation_split, test_split)
        super().__init__(cache_dir, dataset, data_dir, "", label_key, *splits)
        if not text_keys:
            raise ConfigError("config.task.source.text_keys: name at least one feature.")
        self.text_keys, self.label_key = text_keys, label_key

    def read(self, split: str) -> Iterable[Example]:
        builder = self.builder()
        keys = (*self.text_keys, self.label_key)
        rows = prepared_rows(builder, self.splits[split], keys, self.name)
        word = getattr(builder.info.features[self.label_key], "int2str", str)
        for number, row in enumerate(rows):
            texts = [text_of(row[key], self.name, key, number) for key in self.text_keys]
            yield labelled(texts, self._label(row[self.label_key], word, number))

    def _label(self, value: Any, word: Any, row: int) -> str:
        """A label as text; a class by its name."""
        if isinstance(value, bytes | str):
            return text_of(value, self.name, self.label_key, row)
        return word(value)
