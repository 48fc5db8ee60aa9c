"""The state of training, and one update of it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from training.clipping import Clip, unclipped
from training.layer_norms import layer_norms, layer_squares

Array = jax.Array
Sums = dict[str, tuple[Array, Array]]


@flax.struct.dataclass
class TrainState:
    """Everything that changes the next step; random keys are derived, not stored.

    Attributes:
        step: batches consumed, int32.
        params: as plain arrays.
        opt_state: of optax; its count is the number of updates made.
        ema_params: exponential moving average of params, or None.
        skipped, skipped_in_row: batches whose loss or gradient was not finite.
        carry: what the task hands from batch to batch, rows first, or None.
    """

    step: Array
    params: Any
    opt_state: Any
    ema_params: Any
    skipped: Array
    skipped_in_row: Array
    carry: Any = None


def create_state(
    params: Any, optimizer: optax.GradientTransformation, ema: bool, carry: Any = None
) -> TrainState:
    """A state before the first step."""
    zero = jnp.zeros((), jnp.int32)
    ema_params = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState(zero, params, optimizer.init(params), ema_params, zero, zero, carry)


class Shared(NamedTuple):
    """A gradient as a sum and a scalar that it is to be multiplied with."""

    grads: Any
    share: Array

    def product(self) -> Any:
        """Made wherever it is asked for: in memory it would be a copy of all gradients."""
        return jax.tree.map(lambda g: g * self.share, self.grads)


@dataclass(frozen=True)
class UpdateRule:
    """How summed gradients become new parameters.

    Attributes:
        clip_norm: g becomes clip_norm * g / |g| where |g| is larger; 0 is off.
        ema_decay: of the moving average; 0 is off.
        clip: what is done to the gradient before that.
        diagnose_every: also gives the norms of each layer: of its gradient at every step, of
            its update and weights at multiples of this; 0 is off.
    """

    optimizer: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    clip_norm: float
    ema_decay: float
    clip: Clip = unclipped
    diagnose_every: int = 0

    def __call__(
        self, state: TrainState, grads: Any, sums: Sums, carry: Any = None
    ) -> tuple[TrainState, dict]:
        """One update from gradients and sums of the global batch, and the batch's carry.

        Where the loss or a gradient is not finite, parameters, moments, averages, the carry
        and the update count keep every bit, and only the counters move.
        """
        loss_sum, weight = sums["loss"]
        mean = Shared(grads, 1 / weight)
        squares = layer_squares(mean.product())
        norm = jnp.sqrt(squares.sum())
        finite = jnp.isfinite(norm) & jnp.isfinite(loss_sum)
        clipped, clipped_norm = self._clip(mean, norm, state.params)
        due = (state.step + 1) % max(1, self.diagnose_every) == 0
        new, update_norms = self._updated(finite, due, state, clipped, carry)
        params, opt_state, ema, carry = new
        bad = 1 - finite.astype(jnp.int32)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            ema_params=ema,
            skipped=state.skipped + bad,
            skipped_in_row=(state.skipped_in_row + bad) * bad,
            carry=carry,
        )
        scalars = {
            "gradient_norm": norm,
            "clipped_norm": clipped_norm,
            "clipped": (clipped_norm < norm).astype(jnp.float32),
            "learning_rate": self.schedule(state.step - state.skipped),
            "skipped": bad,
            "skipped_in_row": new_state.skipped_in_row,
        }
        record: dict[str, Any] = {"scalars": scalars}
        if self.diagnose_every:
            record["layers"] = {
                "gradient": jnp.sqrt(squares),
                "update": update_norms,
                "weight": norms_when(due, params),
            }
        return new_state, record

    def _updated(
        self, finite: Array, due: Array, state: TrainState, grads: Shared, carry: Any
    ) -> tuple[tuple, Any]:
        """(parameters, moments, averages, carry), the old ones where the step is not finite, and
        the norms of the layers' updates where they are due."""

        def updated(old: tuple) -> tuple[tuple, Any]:
            params, opt_state, ema, _ = old
            updates, opt_state = self.optimizer.update(grads.product(), opt_state, params)
            params = optax.apply_updates(params, updates)
            if ema is not None:
                decay = self.ema_decay
                ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
            norms = norms_when(due, updates) if self.diagnose_every else None
            return (params, opt_state, ema, carry), norms

        # A choice of branches and not of values: with both at hand to choose from, XLA copies all
        # moments before it updates them.
        old = (state.params, state.opt_state, state.ema_params, state.carry)
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(updated, old)[1])
        return jax.lax.cond(finite, updated, lambda old: (old, none), old)

    def _clip(self, grads: Shared, norm: Array, params: Any) -> tuple[Shared, Array]:
        """The gradient that the optimizer sees, and its norm."""
        if self.clip is not unclipped:
            clipped = self.clip(grads.product(), params)
            grads, norm = Shared(clipped, jnp.ones_like(grads.share)), optax.tree.norm(clipped)
        if self.clip_norm:
            scale = jnp.minimum(1.0, self.clip_norm / jnp.maximum(norm, 1e-30))
            grads, norm = grads._replace(share=grads.share * scale), norm * scale
        return grads, norm


def norms_when(due: Array, tree: Any) -> Array:
    """The norm of each layer, or zeros, which cost nothing, when none are due."""
    shape = jax.eval_shape(layer_norms, tree)
    return jax.lax.cond(due, layer_norms, lambda tree: jnp.zeros(shape.shape, shape.dtype), tree)
