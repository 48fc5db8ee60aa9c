"""Batches of labelled texts: one text or two, several to choose from, or a tag a word."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data.batching import Batches, Counts, fill
from data.buckets import assign, choose_shapes, shape_of
from data.corruption import CLS, SEP
from data.plans import Plan, plan_batches
from data.randomness import shuffled
from data.sources.base import SPLITS, Source
from data.tokenizers import BOS, PAD, Tokenizer
from errors import ConfigError, DataError
from registry import shown

Form = Literal["text", "similarity", "choice", "tagging"]
Layout = Literal["encoder", "language_model"]
RESERVED = (CLS, SEP)


class _Row(NamedTuple):
    """What the model reads of an example: `ids` and the `types` of each text of it, for tagging
    the places of the words that have a tag, and whether a text lost its end."""

    ids: list[list[int]]
    types: list[list[int]]
    words: list[int]
    is_cut: bool


class LabelledBatches(Batches):
    """Labelled texts with their special tokens, padded to one of a few widths.

    What is read of an example, by layout (Radford et al. 2018, figure 1; Devlin et al. 2019):
        encoder             [CLS] text [SEP], or [CLS] text [SEP] text [SEP]
        language_model      <s> text [CLS], or <s> text [SEP] text [CLS]; the last token has read
                            everything
    and by form:
        text        all texts of the example in one; the label is a word
        similarity  its two texts; for a language model in both orders; the label is a number
        choice      its first text with each of the others; the label is the number of the right one
        tagging     its one text; the label has a tag for each word, which counts at the first
                    token of the word

    A batch of B rows with O texts of up to T tokens has the fields
        inputs (B, O, T): ids; segments (B, O, T): 1 at tokens; types (B, O, T): 1 in the last text;
        labels (B,) or, for tagging, (B, T): int32, for similarity float32;
        weights: of labels, 1 or 0;
        index (B,): the row of the split, -1 for rows that hold nothing.

    Args:
        source, tokenizer: labelled texts, and a tokenizer with the ids RESERVED.
        seed: another seed, another order of training, and another part of it.
        max_length: tokens of a row; of longer ones the longest text loses its end.
        texts_per_batch, num_buckets: rows of a batch, and widths.
        fraction: of the training examples that are used; a smaller one is part of a larger one.

    Attributes:
        labels: the classes or tags of the training split in their order; empty without any.
        num_views: O.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        cache_dir: str | Path,
        *,
        seed: int,
        form: Form,
        layout: Layout,
        max_length: int,
        texts_per_batch: int,
        num_buckets: int,
        fraction: float,
    ) -> None:
        self.form, self.layout, self.max_length = form, layout, max_length
        self.texts_per_batch, self.num_buckets, self.fraction = (
            texts_per_batch,
            num_buckets,
            fraction,
        )
        options: dict[str, Any] = {
            "seed": seed,
            "form": form,
            "layout": layout,
            "max_length": max_length,
            "texts_per_batch": texts_per_batch,
            "num_buckets": num_buckets,
            "fraction": fraction,
        }
        super().__init__(source, tokenizer, cache_dir, options)
        self.num_texts = self._check_texts()
        both_orders = form == "similarity" and layout == "language_model"
        self.num_views = {"choice": self.num_texts - 1}.get(form, 2 if both_orders else 1)
        self.labels = self._labels()
        for split in SPLITS:  # a wrong label ends a run before it has begun
            self._targets(split)

    def counts(self, split: str) -> Counts:
        rows, chosen = self._rows(split), self._chosen(split)
        tokens = sum(len(ids) for i in chosen for ids in rows[i].ids)
        truncated = 0 if split == "train" else sum(rows[i].is_cut for i in chosen)
        return Counts(len(chosen), tokens, dropped=0, truncated=truncated)

    def num_batches(self, split: str) -> int:
        return len(self._plan(split, 0).edges)

    def rows(self, split: str, epoch: int, place: int) -> dict[str, np.ndarray]:
        plan, widths = self._plan(split, epoch), self._widths(split)
        chosen = fill(plan.rows[slice(*plan.edges[place])], self.texts_per_batch)
        size = (len(chosen), self.num_views, widths[plan.buckets[place]])
        inputs, types, segments = (np.full(size, value, np.int32) for value in (PAD, 0, 0))
        known, targets = self._rows(split), self._targets(split)
        tagging = self.form == "tagging"
        shape = (size[0], size[2]) if tagging else size[:1]
        labels = np.zeros(shape, np.float32 if self.form == "similarity" else np.int32)
        weights = np.zeros(shape, np.float32)
        for row, example in enumerate(chosen):
            if example < 0:
                continue
            for view, (ids, kinds) in enumerate(zip(*known[example][:2], strict=True)):
                inputs[row, view, : len(ids)] = ids
                types[row, view, : len(ids)] = kinds
                segments[row, view, : len(ids)] = 1
            at = (row, known[example].words) if tagging else (row,)
            labels[at] = (
                targets[example][: len(known[example].words)] if tagging else targets[example]
            )
            weights[at] = 1
        return {
            "inputs": inputs,
            "segments": segments,
            "types": types,
            "labels": labels,
            "weights": weights,
            "index": chosen.astype(np.int32),
        }

    def _check_texts(self) -> int:
        """How many texts every example has; raises DataError or ConfigError."""
        examples = self.examples("train")
        count = len(examples[0].texts)
        least, most = {"text": (1, 2), "similarity": (2, 2), "choice": (3, 99), "tagging": (1, 1)}[
            self.form
        ]
        if not least <= count <= most:
            raise ConfigError(
                f"config.task.form {self.form!r} needs examples of {least} to {most} labelled "
                f"texts, and those of {self.source.name} have {count}."
            )
        return count

    def _labels(self) -> tuple[str, ...]:
        if self.form == "similarity":
            return ()
        if self.form == "choice":
            return tuple(str(i) for i in range(self.num_views))
        names = {e.target for e in self.examples("train")}
        if self.form == "tagging":
            names = {tag for target in names for tag in target.split()}
        return tuple(sorted(names, key=lambda name: (not name.isdigit(), name.zfill(9), name)))

    def _targets(self, split: str) -> list:
        return self.once(("targets", split), lambda: self._make_targets(split))

    def _make_targets(self, split: str) -> list:
        """The label of each example as a number, or as numbers of its words."""
        known = {name: i for i, name in enumerate(self.labels)}
        found = []
        for row, example in enumerate(self.examples(split), 1):
            parts = example.target.split() if self.form == "tagging" else [example.target]
            try:
                numbers = [known[part] if known else float(part) for part in parts]
            except (KeyError, ValueError):
                wanted = f"one of {shown(list(self.labels))}" if known else "a number"
                raise DataError(
                    f"{self.source.name}: {split}, example {row}: the label "
                    f"{shown(example.target)} is not {wanted}."
                ) from None
            if self.form == "tagging" and len(parts) != len(example.texts[0].split()):
                raise DataError(
                    f"{self.source.name}: {split}, example {row}: {len(parts)} tags for "
                    f"{len(example.texts[0].split())} words."
                )
            found.append(numbers if self.form == "tagging" else numbers[0])
        return found

    def _rows(self, split: str) -> list[_Row]:
        return self.once(("rows", split), lambda: self._make_rows(split))

    def _make_rows(self, split: str) -> list[_Row]:
        examples = self.examples(split)
        for row, example in enumerate(examples, 1):
            if len(example.texts) != self.num_texts:
                raise DataError(
                    f"{self.source.name}: {split}, example {row}: {len(example.texts)} texts, "
                    f"expected {self.num_texts}."
                )
        if self.form == "tagging":
            return [self._tagged(example.texts[0].split()) for example in examples]
        flat = iter(self.tokenizer.encode_batch([text for e in examples for text in e.texts]))
        return [self._row([next(flat) for _ in e.texts]) for e in examples]

    def _row(self, texts: list[list[int]]) -> _Row:
        views = [texts]
        if self.form == "choice":
            views = [[texts[0], option] for option in texts[1:]]
        elif self.num_views == 2:
            views = [texts, texts[::-1]]
        ids, types = zip(*(self._joined(view) for view in views), strict=True)
        is_cut = any(self._excess(view) > 0 for view in views)
        return _Row(list(ids), list(types), [], is_cut)

    def _tagged(self, words: list[str]) -> _Row:
        space = self.tokenizer.space()
        pieces = [[*space, *piece] for piece in self.tokenizer.encode_batch(words)]
        starts = np.cumsum([1, *map(len, pieces)])[:-1]
        texts = [[i for piece in pieces for i in piece][len(space) :]]
        ids, types = self._joined(texts)
        known = [int(at) for at in starts if at < len(ids) - 1]
        return _Row([ids], [types], known, self._excess(texts) > 0)

    def _excess(self, texts: list[list[int]]) -> int:
        """How many tokens texts have too many, the special ones counted."""
        return sum(map(len, texts)) + len(texts) + 1 - self.max_length

    def _joined(self, texts: list[list[int]]) -> tuple[list[int], list[int]]:
        """The texts with their special tokens in max_length, and the type of each token."""
        texts = [list(text) for text in texts]
        for _ in range(self._excess(texts)):
            max(texts, key=len).pop()
        summary, between = (self.tokenizer.reserved[name] for name in RESERVED)
        encoder = self.layout == "encoder"
        ids, types = [summary if encoder else BOS], [0]
        for number, text in enumerate(texts):
            last = number + 1 == len(texts)
            ids += [*text, between if encoder or not last else summary]
            types += [int(last and number > 0)] * (len(text) + 1)
        return ids, types

    def _chosen(self, split: str) -> np.ndarray:
        """The examples that are used."""
        count = len(self.examples(split))
        if split != "train" or self.fraction == 1:
            return np.arange(count)
        kept = max(1, round(self.fraction * count))
        return np.sort(shuffled(count, f"{self.options['seed']} labels")[:kept])

    def _lengths(self, split: str) -> np.ndarray:
        """The longest view of each example, as both sides of a pair: (examples, 2)."""
        longest = [max(map(len, row.ids)) for row in self._rows(split)]
        return np.repeat(np.array(longest)[:, None], 2, axis=1)

    def _widths(self, split: str) -> list[int]:
        """T of each shape: those of training, and one more where a split needs it."""
        return self.once(("widths", split), lambda: self._make_widths(split))

    def _make_widths(self, split: str) -> list[int]:
        lengths = self._lengths("train")[self._chosen("train")]
        shapes = choose_shapes(lengths, self.num_buckets, 1, self.max_length)
        widths = [shape.target_length for shape in shapes]
        if self._lengths(split)[self._chosen(split)].max() > widths[-1]:
            widths.append(self.max_length)
        return widths

    def _plan(self, split: str, epoch: int) -> Plan:
        return self.plan(split, epoch, lambda: self._make_plan(split, epoch))

    def _make_plan(self, split: str, epoch: int) -> Plan:
        chosen, widths = self._chosen(split), self._widths(split)
        shapes = [shape_of(width, width, 1) for width in widths]
        buckets = assign(self._lengths(split), shapes)
        return plan_batches(
            chosen[self.order(split, epoch, len(chosen))],
            buckets,
            [self.texts_per_batch] * len(widths),
            lambda count: self.order(split, epoch, count, "batches"),
        )
