"""Saying what a text is: a class, a number, one of some texts, or a tag for each word."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

import data
from data.labelled_batches import RESERVED, Form, Layout
from errors import ConfigError
from registry import NonNegativeFloat, NonNegativeInt, PositiveInt, Range
from tasks.base import Evaluation, Sums
from tasks.losses import batch_nll, output_of
from tasks.scores import score_classes, score_numbers
from tasks.text import TextTask

NUM_SAMPLES = 5
Fraction = Annotated[float, Range(0, 1, exclusive_min=True)]


class Classification(TextTask):
    """Fine-tunes a classifier on labelled texts (Radford et al. 2018; Devlin et al. 2019).

      loss = -log p(label | texts) + lm_weight * mean over tokens of -log p(token | its past)

    For similarity it is the squared error instead of the first term, for multiple choice the
    softmax is over the options, and for tagging each word is an example.

    Args:
        source, tokenizer: blocks of tables data.SOURCES and data.TOKENIZERS; the tokenizer of a
            trained model is {"name": "saved", "path": "RUN/tokenizer"}.
        form, layout, max_length, texts_per_batch, num_buckets, fraction: see
            data/labelled_batches.py; the layout goes with the kind of the model in the classifier.
        lm_weight: lambda of Radford et al. (2018), who take 0.5; needs a language model.
        max_characters: 0, or the characters of a token, for a model that reads them.
    """

    model_kind = "classifier"
    batches: data.LabelledBatches
    may_change = (*TextTask.may_change, "tokenizer.path")

    def __init__(
        self,
        seed: int,
        data_dir: str,
        source: Mapping[str, Any],
        tokenizer: Mapping[str, Any],
        form: Form = "text",
        layout: Layout = "language_model",
        max_length: Annotated[int, Range(8)] = 128,
        texts_per_batch: PositiveInt = 32,
        num_buckets: PositiveInt = 4,
        fraction: Fraction = 1.0,
        lm_weight: NonNegativeFloat = 0.0,
        max_characters: NonNegativeInt = 0,
    ) -> None:
        built = self.read_text(source, tokenizer, data_dir, RESERVED)
        self.form, self.layout, self.lm_weight = form, layout, lm_weight
        self.batches = data.LabelledBatches(
            built,
            self.tokenizer,
            data_dir,
            seed=seed,
            form=form,
            layout=layout,
            max_length=max_length,
            texts_per_batch=texts_per_batch,
            num_buckets=num_buckets,
            fraction=fraction,
        )
        self.labels = self.batches.labels
        self.spelled = data.spellings(self.tokenizer, max_characters) if max_characters else None

    def batch(self, split: str, step: int) -> dict:
        batch = super().batch(split, step)
        if self.spelled is not None:
            batch["characters"] = self.spelled[batch["inputs"]]
        return batch

    def init_carry(self, model: Any) -> None:
        """None; refuses a model that does not fit the labels.

        Raises:
            ConfigError: naming the field to change.
        """
        inner, one = model.inner.kind, self.form in ("similarity", "choice")
        characters = getattr(model.inner, "embedding", "") == "characters"
        wanted: dict[str, tuple[Any, Any]] = {
            "model.num_outputs": (model.num_outputs, 1 if one else len(self.labels)),
            "model.per_token": (model.per_token, self.form == "tagging"),
            "task.layout": (self.layout, "encoder" if inner == "encoder" else "language_model"),
        }
        if inner != "language_model":
            wanted["task.lm_weight"] = (self.lm_weight, 0)
        if characters != (self.spelled is not None):
            wanted["task.max_characters"] = (
                0 if characters else "above 0",
                50 if characters else 0,
            )
        for field, (found, right) in wanted.items():
            if found != right:
                labels = f", with the labels {', '.join(self.labels[:20])}" if self.labels else ""
                raise ConfigError(
                    f"config.{field} is {found}, but form {self.form!r} on {model.inner.kind} "
                    f"{type(model.inner).__name__}{labels}, needs {right}."
                )

    def inputs(self, batch: dict) -> tuple:
        """Tokens or characters, segments and types."""
        return batch.get("characters", batch["inputs"]), batch["segments"], batch["types"]

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Sums over labels of "loss", and of "nll" and "accuracy" or of "squared_error"."""
        rngs = {"dropout": key} if train else None
        found, x_BOTD = model.apply(variables, *self.inputs(batch), train=train, rngs=rngs)
        labels, weights = batch["labels"], batch["weights"]
        total = weights.sum()
        scores = self._combined(found)
        if self.form == "similarity":
            error = jnp.where(weights > 0, jnp.square(scores - labels), 0).sum()
            sums = {"loss": error, "squared_error": error}
        else:
            log_p = jax.nn.log_softmax(jnp.where((weights > 0)[..., None], scores, 0))
            right = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
            nll = -(right * weights).sum()
            hits = ((log_p.argmax(-1) == labels) * weights).sum()
            sums = {"loss": nll, "nll": nll, "accuracy": hits}
        if self.lm_weight:
            texts = self._language_model_loss(model, variables, batch, x_BOTD)
            sums |= {"loss": sums["loss"] + self.lm_weight * texts, "lm_loss": texts}
        return {name: (value, total) for name, value in sums.items()}

    def _combined(self, found: jax.Array) -> jax.Array:
        """The scores of an example from those of its texts: (B, C), (B,) or (B, T, C)."""
        if self.form == "choice":
            return found[..., 0]
        if self.form == "similarity":  # of both orders added, before or after a linear layer
            return found[..., 0].sum(1)
        return found[:, 0]

    def _language_model_loss(
        self, model: Any, variables: Any, batch: dict, x_BOTD: jax.Array
    ) -> jax.Array:
        """The mean nll of the tokens of each text, over the texts of a row, summed over rows."""
        output = model.apply(variables, method=output_of)
        rows = x_BOTD.shape[:2]
        inputs_RT, segments_RT = (
            batch[name].reshape(-1, x_BOTD.shape[2]) for name in ("inputs", "segments")
        )
        after = {
            "targets": inputs_RT[:, 1:],
            "weights": segments_RT[:, 1:].astype(jnp.float32),
        }
        x_RTD = x_BOTD.reshape(-1, *x_BOTD.shape[2:])[:, :-1]
        nll_RT = batch_nll(x_RTD, output, after)
        means_R = nll_RT.sum(1) / jnp.maximum(after["weights"].sum(1), 1)
        per_row_B = means_R.reshape(rows).mean(1)
        weights = batch["weights"]
        counts_B = weights.sum(1) if weights.ndim == 2 else weights
        return (per_row_B * counts_B).sum()

    def count(self, batch: dict) -> dict[str, int]:
        """Tokens that are read, and labelled texts."""
        return {
            "tokens": int(batch["segments"].sum()),
            "examples": int((batch["index"] >= 0).sum()),
        }

    def evaluate(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Scores of the answers with their intervals, and a few of the answers.

        Accuracy, macro F1 and Matthews' correlation; for similarity Pearson's and Spearman's.
        """
        labels, answers, rows = self.answers(model, variables, split, poll)
        if self.form == "similarity":
            scores, notes = score_numbers(labels, answers)
        else:
            scores, notes = score_classes(labels, answers, len(self.labels), rows)
        return Evaluation(scores, notes, self._samples(split, answers, rows))

    def answers(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels and answers as numbers, and the rows of the split that they belong to, in order:
        one for each text, or for each word that has a tag."""

        @jax.jit
        def scores_of(variables: Any, inputs: tuple) -> jax.Array:
            return self._combined(model.apply(variables, *inputs)[0])

        parts = []
        for step in range(self.num_batches(split)):
            poll()
            batch = self.batch(split, step)
            scores = np.asarray(scores_of(variables, self.inputs(batch)), np.float64)
            answers = scores if self.form == "similarity" else scores.argmax(-1)
            real = batch["weights"] > 0
            index = batch["index"].reshape(-1, *[1] * (real.ndim - 1))
            rows = np.broadcast_to(index, real.shape)
            parts.append([x[real] for x in (batch["labels"], answers, rows)])
        labels, answers, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(rows, kind="stable")
        return labels[order], answers[order], rows[order]

    def _samples(self, split: str, answers: np.ndarray, rows: np.ndarray) -> list[dict[str, str]]:
        examples = self.batches.examples(split)
        samples = []
        for row in np.unique(rows)[:: max(1, len(np.unique(rows)) // NUM_SAMPLES)][:NUM_SAMPLES]:
            found = answers[rows == row]
            words = [self.labels[i] for i in found] if self.labels else [f"{x:.3g}" for x in found]
            example = examples[row]
            answer = " ".join(words)
            samples.append({"text": example.source, "label": example.target, "answer": answer})
        return samples
