"""Optimizers and learning-rate schedules by name; the mathematics is optax's.

A schedule counts updates, not batches: a skipped step does not advance it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

import registry
from registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Rate
from training.clipping import CLIPPERS, Clip

Schedule = Callable[[Any], Any]


def vaswani(learning_rate: float, num_steps: int, warmup_steps: PositiveInt = 4000) -> Schedule:
    """Linear warm-up, then 1 / sqrt(step) (Vaswani et al. 2017, eq. 3).

    `learning_rate` is the peak, at step warmup_steps; the paper's formula is the peak
    (d_model * warmup_steps)^-0.5.
    """

    def schedule(count: Any) -> Any:
        step = count + 1
        warm = step / warmup_steps
        return learning_rate * jax.numpy.minimum(warm, 1 / jax.numpy.sqrt(warm))

    return schedule


def _warm_up(schedule: Schedule, learning_rate: float, warmup_steps: int) -> Schedule:
    """`schedule` after a linear rise from learning_rate / warmup_steps."""
    if warmup_steps == 0:
        return schedule
    rise = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([rise, schedule], [warmup_steps])


def cosine(
    learning_rate: float, num_steps: int, warmup_steps: NonNegativeInt = 0, final_rate: Rate = 0.0
) -> Schedule:
    """Half a cosine down to final_rate * learning_rate at the last step (Loshchilov 2017)."""
    length = max(1, num_steps - warmup_steps)
    decay = optax.cosine_decay_schedule(learning_rate, length, final_rate)
    return _warm_up(decay, learning_rate, warmup_steps)


def linear(
    learning_rate: float, num_steps: int, warmup_steps: NonNegativeInt = 0, final_rate: Rate = 0.0
) -> Schedule:
    """A straight line down to final_rate * learning_rate at the last step."""
    length = max(1, num_steps - warmup_steps)
    decay = optax.linear_schedule(learning_rate, final_rate * learning_rate, length)
    return _warm_up(decay, learning_rate, warmup_steps)


def constant(learning_rate: float, num_steps: int, warmup_steps: NonNegativeInt = 0) -> Schedule:
    """The same rate for ever, after a linear warm-up."""
    return _warm_up(optax.constant_schedule(learning_rate), learning_rate, warmup_steps)


SCHEDULES = {"vaswani": vaswani, "cosine": cosine, "linear": linear, "constant": constant}


def _decayed(params: Any) -> Any:
    """Weight decay is for matrices: not for biases and the scales of norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def adamw(
    schedule: Schedule,
    b1: Rate = 0.9,
    b2: Rate = 0.98,
    eps: PositiveFloat = 1e-9,
    weight_decay: NonNegativeFloat = 0.0,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decayed)


def adafactor(
    schedule: Schedule,
    weight_decay: NonNegativeFloat = 0.0,
    min_dim_size_to_factor: PositiveInt = 128,
) -> optax.GradientTransformation:
    """Adafactor with an external learning rate (Shazeer & Stern 2018)."""
    return optax.adafactor(
        schedule,
        min_dim_size_to_factor=min_dim_size_to_factor,
        multiply_by_parameter_scale=False,
        weight_decay_rate=weight_decay or None,
        weight_decay_mask=_decayed,
    )


def sgd(
    schedule: Schedule, momentum: Rate = 0.0, nesterov: bool = False
) -> optax.GradientTransformation:
    """Stochastic gradient descent."""
    return optax.sgd(schedule, momentum=momentum or None, nesterov=nesterov)


OPTIMIZERS = {"adamw": adamw, "adafactor": adafactor, "sgd": sgd}


def build_optimizer(
    block: Mapping[str, Any], num_steps: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimizer of config.optimizer and its schedule (update count -> learning rate).

    Clipping is not part of it: the train step clips, because it logs both norms. Nor is
    layer_decay, which has to know the parameters.
    """
    shared = ("learning_rate", "schedule", "clip_norm", "clip", "layer_decay")
    schedule = registry.build(
        "schedule",
        SCHEDULES,
        block["schedule"],
        "config.optimizer.schedule",
        learning_rate=block["learning_rate"],
        num_steps=num_steps,
    )
    own = {key: value for key, value in block.items() if key not in shared}
    built = registry.build("optimizer", OPTIMIZERS, own, "config.optimizer", schedule=schedule)
    return built, schedule


def build_clip(block: Mapping[str, Any]) -> Clip:
    """What config.optimizer.clip does to gradients before clip_norm."""
    return registry.build("clip", CLIPPERS, block["clip"], "config.optimizer.clip")
