"""What tasks share that learn from the texts of a source, cut by a tokenizer."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import data
from tasks.base import Task


class TextTask(Task):
    """A task whose batches are made of a source and a tokenizer, options that are blocks.

    Attributes:
        batches: of data/.
        texts: the source.
    """

    blocks: ClassVar = {"source": data.SOURCES, "tokenizer": data.TOKENIZERS}
    may_change: ClassVar[tuple[str, ...]] = ("source.path", "source.data_dir")
    batches: data.Batches
    texts: data.Source

    def read_text(
        self,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        data_dir: str,
        reserved: Iterable[str] = (),
    ) -> data.Source:
        """The source of a block; the tokenizer, with the reserved ids, becomes the task's own."""
        built = self.texts = data.build_source(source, data_dir)
        self.tokenizer = data.build_tokenizer(tokenizer, built, data_dir).reserve(reserved)
        self.vocab_size = self.tokenizer.vocab_size
        return built

    def batch(self, split: str, step: int) -> dict:
        return self.batches.batch(split, step)

    def num_batches(self, split: str) -> int:
        return self.batches.num_batches(split)

    def fingerprint(self) -> dict[str, str]:
        return {"data": self.batches.fingerprint(), "tokenizer": self.tokenizer.fingerprint()}

    def save(self, folder: Any) -> None:
        self.tokenizer.save(folder / "tokenizer")
