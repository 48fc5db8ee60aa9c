"""Undoing a corruption of text, and going on with a text from a prefix."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

import data
from data.corruption import NUM_SENTINELS, num_noise
from data.denoising_batches import RESERVED, Objective
from errors import ConfigError
from registry import NonNegativeInt, PositiveInt, Range, Rate
from tasks.base import Evaluation
from tasks.samples import continued
from tasks.search import Translator
from tasks.text import TextTask
from tasks.token_prediction import TokenPrediction

NUM_SAMPLES = 5


class Denoising(TokenPrediction):
    """Maximises the probability of what a corruption took away, or of the whole text.

    objective:
        span_corruption: spans behind sentinels, which the target lists (T5, Raffel et al.
            2020);
        text_infilling: spans behind one [MASK] each, and the documents of a row in another
            order; the target is the text (BART, Lewis et al. 2020);
        prefix: the beginning of the text is given, the target is the rest (Liu et al. 2018).

    The corruption is another one in each epoch of training, and always the same in validation
    and test (for every seed).

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS.
        side: "source" or "target" of the pairs.
        sequence_length: tokens of the text in a row.
        sequences_per_batch: rows in a batch.
        packed: several documents in a row; else one.
        noise_rate: share of the tokens that is hidden: 0.15 in T5, 0.3 in BART.
        mean_span: mean length of a hidden span.
        permute: whether text_infilling changes the order of documents.
        label_smoothing: of the training loss only.
    """

    model_kind = "seq2seq"

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        side: Literal["source", "target"] = "target",
        objective: Objective = "span_corruption",
        sequence_length: PositiveInt = 128,
        sequences_per_batch: PositiveInt = 16,
        packed: bool = True,
        noise_rate: Rate = 0.15,
        mean_span: Annotated[float, Range(0, 100, exclusive_min=True)] = 3.0,
        permute: bool = True,
        label_smoothing: Rate = 0.0,
    ) -> None:
        _, spans = num_noise(sequence_length, noise_rate, mean_span)
        if objective == "span_corruption" and spans > NUM_SENTINELS:
            raise ConfigError(
                f"config.task.mean_span ({mean_span}) makes {spans} spans of config.task."
                f"sequence_length ({sequence_length}); there are {NUM_SENTINELS} sentinels."
            )
        built = self.read_text(source, tokenizer, data_dir, RESERVED[objective])
        self.label_smoothing = label_smoothing
        self.batches = data.DenoisingBatches(
            built,
            self.tokenizer,
            data_dir,
            seed=seed,
            side=side,
            objective=objective,
            sequence_length=sequence_length,
            sequences_per_batch=sequences_per_batch,
            packed=packed,
            rate=noise_rate,
            mean_span=mean_span,
            permute=permute,
        )

    def inputs(self, batch: dict) -> tuple:
        return batch["source"], batch["inputs"]

    def evaluate(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """A few corrupted texts, their targets, and what the model writes (greedily)."""
        batch = self.batch(split, 0)
        rows = np.flatnonzero(batch["index"] >= 0)[:NUM_SAMPLES]
        sources = [ids[ids != data.PAD] for ids in batch["source"][rows]]
        search = Translator(model, variables, self.tokenizer, num_beams=1)
        outputs = search.translate_ids(sources, poll)
        decode = self.tokenizer.decode
        samples = [
            {"source": decode(source), "reference": decode(target), "output": decode(output)}
            for source, target, output in zip(sources, batch["targets"][rows], outputs, strict=True)
        ]
        return Evaluation(samples=samples)


class PrefixLanguageModelling(TokenPrediction):
    """Goes on with a text from a prefix, by a language model (Raffel et al. 2020, 3.2.3).

    Where the prefix ends is drawn for each row; what is in it is read and not predicted: from
    left to right, as the rest, or with `bidirectional` both ways, which the model must be for
    (config.model.bidirectional_prefix; Liu et al. 2018, Raffel et al. 2020, 3.2.1).

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS.
        side: "source" or "target" of the pairs.
        sequence_length: tokens in a row.
        sequences_per_batch: rows in a batch.
        packed: several documents in a row, as one text; else one.
        label_smoothing: of the training loss only.
        bidirectional: the places of the prefix see each other both ways.
        num_samples: texts of the final split of which the trained model writes a continuation.
    """

    model_kind = "language_model"
    may_change: ClassVar[tuple[str, ...]] = (*TextTask.may_change, "num_samples")

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        side: Literal["source", "target"] = "target",
        sequence_length: PositiveInt = 128,
        sequences_per_batch: PositiveInt = 16,
        packed: bool = False,
        label_smoothing: Rate = 0.0,
        bidirectional: bool = False,
        num_samples: NonNegativeInt = 0,
    ) -> None:
        if sequence_length < 2:
            raise ConfigError(
                f"config.task.sequence_length must be at least 2, got {sequence_length}."
            )
        built = self.read_text(source, tokenizer, data_dir)
        self.label_smoothing = label_smoothing
        self.side, self.num_samples = side, num_samples
        self.batches = data.PrefixBatches(
            built,
            self.tokenizer,
            data_dir,
            seed=seed,
            side=side,
            sequence_length=sequence_length,
            sequences_per_batch=sequences_per_batch,
            packed=packed,
            marked=bidirectional,
        )

    def inputs(self, batch: dict) -> tuple:
        return batch["inputs"], batch["segments"]

    def evaluate(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> Evaluation:
        return continued(model, variables, self, split, self.num_samples, self.side, poll)
