"""The state of training, and one update of it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
        grads = jax.tree.map(lambda g: g / weight, grads)
        squares = layer_squares(grads)
        norm = jnp.sqrt(squares.sum())
        finite = jnp.isfinite(norm) & jnp.isfinite(loss_sum)
        clipped, clipped_norm = self._clip(grads, norm, state.params)
        updates, opt_state = self.optimizer.update(clipped, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema_params
        if ema is not None:
            decay = self.ema_decay
            ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
        old = (state.params, state.opt_state, state.ema_params, state.carry)
        params, opt_state, ema, carry = jax.tree.map(
            lambda new, kept: jnp.where(finite, new, kept), (params, opt_state, ema, carry), old
        )
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
            due = new_state.step % self.diagnose_every == 0
            record["layers"] = {
                "gradient": jnp.sqrt(squares),
                "update": norms_when(due, updates),
                "weight": norms_when(due, state.params),
            }
        return new_state, record

    def _clip(self, grads: Any, norm: Array, params: Any) -> tuple[Any, Array]:
        """The gradient that the optimizer sees, and its norm."""
        clipped = self.clip(grads, params)
        if clipped is not grads:
            norm = optax.tree.norm(clipped)
        if not self.clip_norm:
            return clipped, norm
        scale = jnp.minimum(1.0, self.clip_norm / jnp.maximum(norm, 1e-30))
        return jax.tree.map(lambda g: g * scale, clipped), norm * scale


def norms_when(due: Array, tree: Any) -> Array:
    """The norm of each layer, or zeros, which cost nothing, when none are due."""
    shape = jax.eval_shape(layer_norms, tree)
    return jax.lax.cond(due, layer_norms, lambda tree: jnp.zeros(shape.shape, shape.dtype), tree)
