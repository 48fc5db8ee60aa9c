"""What the training loop knows of the work."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax

import data

Sums = dict[str, tuple[jax.Array, jax.Array]]


class Evaluation(NamedTuple):
    """Scores that need decoding.

    Attributes:
        scores: numbers, for the metrics.
        notes: texts that a score means nothing without, such as sacreBLEU's signature.
        samples: a few examples to look at, as dicts of texts.
    """

    scores: Mapping[str, float] = MappingProxyType({})
    notes: Mapping[str, str] = MappingProxyType({})
    samples: Sequence[dict[str, str]] = ()


class Task:
    """A source of batches and an objective: all that train.py knows of the work.

    Class attributes:
        model_kind: the kind of model that loss() calls, such as "language_model", or several.
        blocks: options that are named blocks themselves, each with its table.
        may_change: options that a resumed run may have otherwise.
    Attributes:
        tokenizer: of the texts that batches are made of.
        vocab_size: ids are below it.
    """

    model_kind: ClassVar[str | tuple[str, ...]]
    blocks: ClassVar[dict[str, dict[str, Any]]] = {}
    may_change: ClassVar[tuple[str, ...]] = ()
    tokenizer: data.Tokenizer
    vocab_size: int

    def batch(self, split: str, step: int) -> dict:
        """Numpy arrays of the global batch; depends on seed, split and step only."""
        raise NotImplementedError

    def stream(self, split: str, start: int, stop: int) -> Iterator[tuple[int, dict]]:
        """(step, batch) from `start` up to `stop`, made ahead of time by another thread."""
        return data.prefetch(functools.partial(self.batch, split), start, stop)

    def num_batches(self, split: str) -> int:
        """Batches of one pass over a split."""
        raise NotImplementedError

    def loss(self, model: Any, variables: Any, batch: dict, key: jax.Array, train: bool) -> Sums:
        """Returns sums over the batch; "loss" is the one that is minimised.

        Sums and not means: the caller adds them up over devices and divides once, so
        a step does not depend on the number of devices or on where the padding fell.
        A "nll" beside it, in nats, is what perplexity is made of. Where init_carry gives
        something, the batch has it as "carry", from the step before, and so have the sums,
        for the next one.
        """
        raise NotImplementedError

    def inputs(self, batch: dict) -> tuple:
        """The fields of a batch that the model reads, as arguments of its `features`."""
        raise NotImplementedError

    def token_losses(self, model: Any, variables: Any, batch: dict) -> tuple[jax.Array, Any]:
        """Of each target of a batch the negative log-likelihood in nats, (B, T), 0 where the
        weight is; and the carry for the next batch, as in `loss`."""
        raise NotImplementedError

    def init_carry(self, model: Any) -> Any:
        """What a step hands to the next, zero before the first: arrays with the rows of a
        batch as their leading axis, or None. It begins anew with each pass over a split.
        """
        return None

    def count(self, batch: dict) -> dict[str, int]:
        """Predicted tokens and examples of a batch, counted on the host."""
        weights_BT = batch["weights"]
        return {
            "tokens": int(weights_BT.sum()),
            "examples": int((weights_BT.sum(axis=1) > 0).sum()),
        }

    def evaluate(
        self, model: Any, variables: Any, split: str, poll: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """Scores that need decoding, such as BLEU; most tasks have none. Calls poll() often."""
        return Evaluation()

    def fingerprint(self) -> dict[str, str]:
        """Digests of whatever decides the batches, by name: data, tokenizer, batching."""
        raise NotImplementedError

    def save(self, folder: Any) -> None:
        """Writes what a user of the trained model needs, such as the tokenizer."""
