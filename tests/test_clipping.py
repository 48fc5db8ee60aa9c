"""Clipping of gradients, against its formulas and against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from errors import ConfigError
from training import clipping
from training.optimizer import build_clip
from training.state import UpdateRule, create_state

PARAMS = {"kernel": jnp.array([[3.0, 0.0], [4.0, 1e-5]]), "bias": jnp.array([0.3, 0.4])}
GRADS = {"kernel": jnp.array([[3.0, 3.0], [-4.0, 4.0]]), "bias": jnp.array([1e-3, 0.0])}


def build(**block):
    return build_clip({"clip": block})


def update(clip, clip_norm=0.0, grads=GRADS):
    """(what an SGD step of rate 1 subtracted, the scalars of the record)."""
    rule = UpdateRule(optax.sgd(1.0), lambda count: 1.0, clip_norm, 0.0, clip)
    state = create_state(PARAMS, rule.optimizer, ema=False, carry=jnp.zeros(2))
    sums = {"loss": (jnp.ones(()), jnp.ones(()))}
    new, record = jax.jit(rule)(state, grads, sums, jnp.ones(2))
    assert (new.carry == 1 - record["scalars"]["skipped"]).all()  # a bad one is not handed on
    return jax.tree.map(lambda a, b: a - b, PARAMS, new.params), record["scalars"]


def test_by_value_each_element_by_itself():
    step, scalars = update(build(name="value", limit=3.5))
    np.testing.assert_allclose(step["kernel"], [[3.0, 3.0], [-3.5, 3.5]], atol=1e-6)
    assert scalars["clipped"] == 1
    assert scalars["gradient_norm"] == pytest.approx(np.sqrt(50 + 1e-6))
    assert scalars["clipped_norm"] == pytest.approx(np.sqrt(2 * (9 + 3.5**2) + 1e-6))


def test_adaptive_by_the_formula_and_as_optax_has_it():
    """The first unit has weights of norm 5, the second none to speak of."""
    clipped = jax.jit(build(name="adaptive", ratio=0.1))(GRADS, PARAMS)
    np.testing.assert_allclose(clipped["kernel"][:, 0], [0.3, -0.4], rtol=1e-6)
    np.testing.assert_allclose(clipped["kernel"][:, 1], np.array([3.0, 4.0]) * 1e-4 / 5, rtol=1e-5)
    np.testing.assert_allclose(clipped["bias"], GRADS["bias"])
    theirs = optax.adaptive_grad_clip(0.1)
    expected, _ = jax.jit(theirs.update)(GRADS, theirs.init(PARAMS), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), clipped, expected)


def test_the_global_norm_comes_after():
    step, scalars = update(build(name="value", limit=1.0), clip_norm=1.0)
    norm = np.sqrt(4 + 1e-6)
    np.testing.assert_allclose(step["kernel"], np.sign(GRADS["kernel"]) / norm, rtol=1e-4)
    assert scalars["clipped_norm"] == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", ["value", "adaptive"])
def test_what_is_small_is_left_alone_and_nan_is_not_hidden(name):
    clip = build(name=name, **({"limit": 5.0} if name == "value" else {"ratio": 1e6}))
    step, scalars = update(clip)
    np.testing.assert_allclose(step["kernel"], GRADS["kernel"], atol=1e-6)
    assert scalars["clipped"] == 0
    bad = GRADS | {"bias": jnp.array([jnp.inf, 0.0])}
    step, scalars = update(clip, grads=bad)
    assert scalars["skipped"] == 1
    assert not np.any(step["kernel"])


def test_a_bad_choice_is_one_line():
    with pytest.raises(
        ConfigError, match=r"config\.optimizer\.clip\.name: .*'norm'.* Known: adaptive"
    ):
        build(name="norm")
    with pytest.raises(ConfigError, match=r"config.optimizer.clip.limit must be a number above 0"):
        build(name="value", limit=0)
    assert clipping.CLIPPERS.keys() == {"none", "value", "adaptive"}
