"""Translation: the target text given the source text."""

from collections.abc import Callable, Mapping
from typing import Any

import sacrebleu

import data
from registry import NonNegativeFloat, PositiveInt, Rate
from tasks.base import Evaluation
from tasks.search import Translator
from tasks.token_prediction import TokenPrediction

NUM_SAMPLES = 5


class Translation(TokenPrediction):
    """Maximises the probability of each target token given the source and those before it.

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS.
        tokens_per_batch: target places of a training batch, rows times length.
        max_length: tokens on either side; longer training pairs are left out.
        num_buckets: shapes of batches at most.
        label_smoothing: of the training loss only (Szegedy et al. 2016).
        num_beams, length_penalty: of the search in `evaluate` (Wu et al. 2016).
    """

    model_kind = "seq2seq"
    may_change = ("num_beams", "length_penalty", *TokenPrediction.may_change)

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        tokens_per_batch: PositiveInt = 2048,
        max_length: PositiveInt = 128,
        num_buckets: PositiveInt = 5,
        label_smoothing: Rate = 0.1,
        num_beams: PositiveInt = 5,
        length_penalty: NonNegativeFloat = 1.0,
    ) -> None:
        self.source = self.read_text(source, tokenizer, data_dir)
        self.label_smoothing, self.max_length = label_smoothing, max_length
        self.num_beams, self.length_penalty = num_beams, length_penalty
        self.batches = data.PairBatches(
            self.source,
            self.tokenizer,
            data_dir,
            seed=seed,
            tokens_per_batch=tokens_per_batch,
            max_length=max_length,
            num_buckets=num_buckets,
        )

    def inputs(self, batch: dict) -> tuple:
        return batch["source"], batch["inputs"]

    def translator(self, model: Any, variables: Any) -> Translator:
        """The model as a function from text to text."""
        return Translator(
            model,
            variables,
            self.tokenizer,
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            max_length=self.max_length,
        )

    def evaluate(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Scores of the outputs for a split, and a few of the outputs."""
        examples = self.source.pairs(split)
        sources = [example.source for example in examples]
        references = [example.target for example in examples]
        outputs = self.translator(model, variables).translate(sources, poll)
        scores, notes = self.score(outputs, split)
        exact = sum(out == ref for out, ref in zip(outputs, references, strict=True))
        scores["exact_match"] = exact / len(references)
        chosen = range(0, len(sources), max(1, len(sources) // NUM_SAMPLES))[:NUM_SAMPLES]
        samples = [
            {"source": sources[i], "reference": references[i], "output": outputs[i]} for i in chosen
        ]
        return Evaluation(scores, notes, samples)

    def score(self, outputs: list[str], split: str) -> tuple[dict[str, float], dict[str, str]]:
        """BLEU and chrF by sacreBLEU on detokenised text, with their signatures."""
        references = [example.target for example in self.source.pairs(split)]
        scores, notes = {}, {}
        for metric in (sacrebleu.BLEU(), sacrebleu.CHRF()):
            name = type(metric).__name__.lower()
            scores[name] = metric.corpus_score(outputs, [references]).score
            notes[f"{name}_signature"] = metric.get_signature().format()
        return scores, notes
