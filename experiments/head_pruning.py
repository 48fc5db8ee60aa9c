"""The heads that each method keeps, and what they cost: the work of experiments/prune_heads.py."""

import argparse
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import models
from analysis import bootstrap, gates, pruning
from analysis.heads import Ablation, Heads
from errors import ConfigError
from experiments.ablate_heads import batches_of
from training.optimizer import build_optimizer

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1)  # nats per token and open head
SCRATCH = "from scratch"


class Point(NamedTuple):
    """The loss with the heads that one method keeps, against that with all.

    Attributes:
        parts: how many it keeps of each part, such as "encoder 3, decoder 3, cross 6".
    """

    method: str
    seed: int
    kept: int
    loss: float
    change: float
    low: float
    high: float
    parts: str = ""


class Proposal(NamedTuple):
    """Heads to keep; `variables` where the model has learned together with its gates."""

    method: str
    seed: int
    mask: np.ndarray
    variables: Any = None


class Study:
    """A model whose heads are removed, and the batches that say which and at what price."""

    def __init__(self, run: Any, task: Any, options: argparse.Namespace) -> None:
        self.run, self.task, self.options = run, task, options
        self.heads = Heads(run.model, run.variables)
        steps = np.linspace(len(self.heads), 0, min(options.steps, len(self.heads)) + 1)
        fewest = pruning.least_heads(run.model)
        half = max(fewest, len(self.heads) // 2)
        self.keep = half if options.keep is None else options.keep
        if not fewest <= self.keep <= len(self.heads):
            raise ConfigError(f"--keep must be in {fewest} to {len(self.heads)}, got {self.keep}.")
        counts = {*np.round(steps).astype(int).tolist(), self.keep}
        self.kept = sorted(counts, reverse=True)  # --keep among them: no ties at the cut
        self.batches = batches_of(task, options.split, options.limit)
        self.scoring = batches_of(task, options.order_split, options.limit)

    @property
    def model(self) -> tuple[Any, Any, Any, Any]:
        return self.task, self.run.model, self.run.variables, self.heads

    def training_batches(self) -> Iterator[dict[str, np.ndarray]]:
        return (self.task.batch("train", step) for step in range(self.options.gate_steps))

    def proposals(self, method: str) -> list[Proposal]:
        """Everything that a method proposes."""
        seed = self.options.seed
        if method == "importance":
            normalise = self.options.normalise
            masks = pruning.masks_by_importance(
                *self.model, self.scoring, self.kept, normalise=normalise
            )
        elif method == "weight_norm":
            scores = pruning.weight_norms(*self.model[1:])
            masks = pruning.nested_masks(scores, self.kept)
        elif method == "random":
            return [
                Proposal(method, own, mask)
                for own in range(seed, seed + self.options.seeds)
                for mask in pruning.nested_masks(
                    np.random.default_rng(own).random(len(self.heads)), self.kept
                )
            ]
        else:
            return self.learned(method)
        return [Proposal(method, seed, mask) for mask in masks]

    def learned(self, method: str) -> list[Proposal]:
        """What gates propose: l0 at each penalty, top_k for some numbers of heads.

        Where the model learns too, there is one without pressure to lose a head: what the steps
        do to the whole model.
        """
        tunes, options = self.options.tune_model, {"seed": self.options.seed}
        if tunes:
            steps = self.options.gate_steps
            options["tune"] = tuner(self.run.settings, self.options.tune_rate, steps)

        def learn(setting: Any) -> tuple[np.ndarray, Any]:
            if method == "l0":
                arguments = (*self.model, self.training_batches())
                return gates.learn_l0(*arguments, penalty=setting, **options)
            logits_X, variables = gates.learn_top_k(
                *self.model, self.training_batches(), count=setting, **options
            )
            return pruning.nested_masks(logits_X, [setting])[0], variables

        inner = self.kept[1:-1][:: max(1, len(self.kept) // 4)] or self.kept[:1]
        settings: Sequence[Any] = PENALTIES if method == "l0" else inner
        if tunes:
            settings = [0.0 if method == "l0" else len(self.heads), *settings]
        found = [learn(setting) for setting in settings]
        name = f"{method}_tuned" if tunes else method
        return [
            Proposal(name, self.options.seed, mask, variables if tunes else None)
            for mask, variables in found
        ]

    def curves(self, tick: Callable[[], None]) -> tuple[list[Point], dict[str, np.ndarray]]:
        """The losses of all masks of all methods, and the masks of each method."""
        proposed = []
        for method in self.options.methods:
            proposed += self.proposals(method)
            tick()
        masks = [np.ones(len(self.heads)), *(one.mask for one in proposed)]
        losses_ME, weights_E = Ablation(*self.model).over(
            np.array(masks, np.float32), self.batches, tick
        )
        tuned = [m for m, one in enumerate(proposed, 1) if one.variables is not None]
        if tuned:
            each = (self.masked(proposed[m - 1]) for m in tuned)
            losses_ME[tuned] = self.losses(self.run.model, each)
        points = [
            point._replace(parts=self.by_part(one.mask))
            for point, one in zip(
                self.points(proposed, losses_ME, weights_E), proposed, strict=True
            )
        ]
        by_method = {
            m: np.array([one.mask for one in proposed if one.method == m])
            for m in self.options.methods
        }
        return points, by_method

    def masked(self, proposal: Proposal) -> Any:
        """The variables that a method proposes, without the heads that it removes."""
        return self.heads.masked(proposal.variables, proposal.mask)

    def weights(self) -> np.ndarray:
        """Predicted tokens (E,) of all examples."""
        each = [batch["weights"].sum(1) for batch in self.batches]
        return np.concatenate([num_B[num_B > 0] for num_B in each])

    def losses(self, model: Any, each: Iterable[Any]) -> np.ndarray:
        """Summed losses (M, E) of all examples under other variables, or another model."""
        row_losses = jax.jit(functools.partial(self.task.token_losses, model))
        rows = []
        for variables in each:
            losses = [
                np.asarray(row_losses(variables, batch)[0], np.float64).sum(1)[
                    batch["weights"].sum(1) > 0
                ]
                for batch in self.batches
            ]
            rows.append(np.concatenate(losses))
        return np.array(rows)

    def points(
        self, proposed: Sequence[Proposal], losses_ME: np.ndarray, weights_E: np.ndarray
    ) -> list[Point]:
        """Points of proposals, whose losses come after those of the whole model."""
        changes_ME = losses_ME[1:] - losses_ME[:1]
        sure = bootstrap.compare_means(
            changes_ME, weights_E, self.options.resamples, self.options.seed
        )
        means_M = losses_ME[1:].sum(1) / weights_E.sum()
        return [
            Point(one.method, one.seed, int(one.mask.sum()), loss, change, low, high)
            for one, loss, change, low, high in zip(
                proposed,
                *(x.tolist() for x in (means_M, sure.change, sure.low, sure.high)),
                strict=True,
            )
        ]

    def by_part(self, mask_X: np.ndarray) -> str:
        """How many heads of each part a mask keeps, in words."""
        kept: dict[str, int] = {}
        for head, keeps in zip(self.heads.names, mask_X, strict=True):
            kept[head.part] = kept.get(head.part, 0) + int(keeps)
        return ", ".join(f"{part} {number}" for part, number in kept.items())

    def cut(self, mask: np.ndarray) -> dict[str, Any]:
        """What a model without these heads computes, how fast, and in how much memory."""
        batch = self.batches[0]
        found: dict[str, Any] = {"kept": int(mask.sum())}
        plain = self.run.model, self.run.variables
        sides = {"whole": plain, "smaller": pruning.remove_heads(*plain, mask)}
        outputs = {}
        for name, (model, variables) in sides.items():
            losses = jax.jit(self.task.token_losses, static_argnums=0)
            program = losses.lower(model, variables, batch).compile()
            outputs[name] = np.asarray(program(variables, batch)[0])
            seconds = []
            for _ in range(7):
                start = time.perf_counter()
                jax.block_until_ready(program(variables, batch))
                seconds.append(time.perf_counter() - start)
            analysis = program.memory_analysis()
            found[name] = {
                "parameters": models.num_parameters(variables),
                "seconds": float(np.median(seconds)),
                "bytes": getattr(analysis, "temp_size_in_bytes", 0),
            }
        masked = self.heads.masked(self.run.variables, mask)
        expected = self.task.token_losses(self.run.model, masked, batch)[0]
        found["largest_difference"] = float(np.abs(outputs["smaller"] - expected).max())
        found["heads_kept"] = list(sides["smaller"][0].heads_kept)
        return found

    def smaller_model(self, masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The model cut down to --keep heads, by importance if that was asked for, else by norm."""
        if "importance" in masks:
            by, ranks_X = "importance", masks["importance"].sum(0)  # removals that each survives
        else:
            by, ranks_X = "weight_norm", pruning.weight_norms(*self.model[1:])
        (mask,) = pruning.nested_masks(ranks_X, [self.keep])
        return {"by": by, **self.cut(mask)}


def tuner(settings: Mapping[str, Any], share: float, steps: int) -> optax.GradientTransformation:
    """The optimizer of a run at a constant rate, `share` of its peak."""
    rate = share * settings["optimizer"]["learning_rate"]
    block = {**settings["optimizer"], "learning_rate": rate, "schedule": {"name": "constant"}}
    optimizer, _ = build_optimizer(block, steps)
    norm = block["clip_norm"]
    return optax.chain(optax.clip_by_global_norm(norm), optimizer) if norm else optimizer
