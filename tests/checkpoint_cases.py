"""Small states and checkpoints of them, for the tests of checkpoints."""

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from training.checkpoints import Checkpointer

FINGERPRINT = {"data": "d1", "tokenizer": "t1"}


@flax.struct.dataclass
class State:
    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any


def make_state(seed: int, size: int = 8) -> State:
    """A small state with every kind of array that a real one has."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "encoder": {"kernel": jax.random.normal(keys[0], (size, 4)), "empty": jnp.zeros((0, 2))},
        "out": {"bias": jax.random.normal(keys[1], (size,)).astype(jnp.bfloat16)},
    }
    opt_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(seed, x.dtype), opt_state)
    return State(jnp.asarray(seed, jnp.int32), params, opt_state, None)


def abstract(state: Any) -> Any:
    return jax.eval_shape(lambda: state)


def assert_same_bits(got: Any, expected: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save(directory: Path, *steps: int, keep: int = 5) -> None:
    with Checkpointer(directory, keep, FINGERPRINT) as checkpointer:
        for step in steps:
            checkpointer.save(step, make_state(step), {"tokens": step * 100})


def restore(directory: Path, **kwargs: Any) -> tuple[int, Any, dict] | None:
    with Checkpointer(directory, 5, FINGERPRINT) as checkpointer:
        return checkpointer.restore(abstract(make_state(0)), **kwargs)


def assert_restores(directory: Path, step: int) -> None:
    found = restore(directory)
    assert found is not None
    assert found[0] == step
    assert found[2] == {"tokens": step * 100}
    assert_same_bits(found[1], make_state(step))
