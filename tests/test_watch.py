"""Warnings of sick training: each sign seeded into a tiny network, and a healthy one beside it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tasks
from train import train_step
from training import watch
from training.layer_norms import layer_names, layer_norms, stacks
from training.optimizer import build_optimizer
from training.state import UpdateRule, create_state
from training.watch import Watch

EVERY, STEPS = 2, 60


class Deep(nn.Module):
    """Narrow layers; a small slope lets no gradient through them."""

    @nn.compact
    def __call__(self, x_BD, slope):
        for i in range(6):
            x_BD = jnp.tanh(slope * nn.Dense(8, name=f"layers_{i}")(x_BD))
        return nn.Dense(1, name="out")(x_BD)[:, 0]


class Regression(tasks.Task):
    """Learns the sum of the inputs; a batch may carry an illness."""

    def loss(self, model, variables, batch, key, train):
        x_BD, ill = batch["x"], {name: batch[name][0] for name in ILL}
        error_B = model.apply(variables, x_BD, ill["slope"]) - x_BD.sum(1) + ill["shift"]
        weight = jnp.float32(len(x_BD))
        squares = [jnp.square(leaf).sum() for leaf in jax.tree.leaves(variables)]
        loss = ill["scale"] * jnp.square(error_B).mean() + ill["decay"] * sum(squares)
        return {"loss": (loss * weight, weight)}


ILL = {"slope": 1.0, "scale": 1.0, "shift": 0.0, "decay": 0.0}


@functools.cache
def compiled():
    model = Deep()
    params = model.init(jax.random.key(0), jnp.ones((1, 8)), 1.0)["params"]
    block = {"name": "sgd", "learning_rate": 0.02, "schedule": {"name": "constant"}}
    optimizer, schedule = build_optimizer(block, STEPS)
    rule = UpdateRule(optimizer, schedule, clip_norm=0.0, ema_decay=0.0, diagnose_every=EVERY)
    step = functools.partial(train_step, model=model, task=Regression(), rule=rule)
    return create_state(params, optimizer, False), jax.jit(step)


def warnings_of(sickness, steps=STEPS, restart=None):
    """The warnings of a run; sickness(i) gives what is ill at a step."""
    state, step = compiled()
    seen, found = Watch(layer_names(state.params), EVERY), []
    for i in range(steps):
        ill = {name: np.full(8, value, np.float32) for name, value in (ILL | sickness(i)).items()}
        x_BD = np.random.default_rng(i).normal(size=(8, 8)).astype(np.float32)
        state, record = step(state, {"x": x_BD, **ill}, jax.random.key(0))
        found += seen.add(i + 1, jax.device_get(record))
        if i == restart:
            seen = Watch(seen.layers, EVERY, seen.state())
    return found


def named(found):
    return {(one.name, one.layer) for one in found}


def test_a_healthy_run_is_silent():
    assert warnings_of(lambda i: {}) == []


def test_a_jump_of_the_loss():
    found = warnings_of(lambda i: {"shift": 9.0 * (i == 40)})
    assert named(found) == {("loss_jump", "")}
    assert found[0].step == 41
    assert str(found[0]).startswith("step 41: warning loss_jump: loss ")


def test_a_step_that_is_not_finite_names_the_first_layer_and_is_said_once():
    found = warnings_of(lambda i: {"shift": np.nan if i in (30, 31) else 0.0})
    assert named(found) == {("not_finite", "layers_0")}
    assert [one.step for one in found] == [31]


def test_an_exploding_gradient_names_the_layer_that_grew_most():
    found = warnings_of(lambda i: {"scale": 40.0 if i == 30 else 1.0}, steps=31)
    assert [one.name for one in found if one.name != "loss_jump"] == ["exploding_gradient"]
    assert found[-1].layer.startswith("layers_")
    assert {one.step for one in found} == {31}


def test_a_huge_gradient_needs_no_history():
    found = warnings_of(lambda i: {"scale": 1e6}, steps=1)
    assert {one.name for one in found} == {"exploding_gradient"}
    assert found[0].step == 1


def test_a_vanishing_gradient_and_a_still_layer():
    found = warnings_of(lambda i: {"slope": 0.02})
    assert ("vanishing_gradient", "layers_0") in named(found)
    assert ("still_layer", "layers_0") in named(found)
    assert min(one.step for one in found) == EVERY * watch.PATIENCE
    assert {one.name for one in found} == {"vanishing_gradient", "still_layer"}
    assert "layers_5" not in {one.layer for one in found}


@pytest.mark.parametrize(("decay", "name"), [(-4.0, "growing"), (4.0, "shrinking")])
def test_weights_that_change_exponentially(decay, name):
    """A penalty of the wrong sign, or one that leaves nothing to learn."""
    found = warnings_of(lambda i: {"decay": decay, "scale": 0.0}, steps=EVERY * watch.WINDOW)
    assert {one.name for one in found} == {f"weights_{name}"}
    assert {one.layer for one in found} >= {"layers_0", "layers_5"}


def test_weights_that_settle_or_grow_in_a_line_are_healthy():
    seen, said = Watch(["a", "b"], 1), []
    for step in range(1, 60):
        norms = np.array([5 - 4.5 * 0.5**step, 1.0 + step])
        said += seen.add(step, record_of(norms))
    assert said == []


def record_of(weight, update=1e-3):
    norms = {"gradient": np.ones(2), "update": update * weight, "weight": weight}
    scalars = {"skipped": 0, "gradient_norm": 1.4}
    return {"sums": {"loss": (2.0, 1.0)}, "scalars": scalars, "layers": norms}


def test_a_schedule_that_ends_stills_all_layers_and_that_is_healthy():
    seen, said = Watch(["a", "b"], 1), []
    for step in range(1, 60):
        said += seen.add(step, record_of(np.array([1.0, 2.0]), update=0.5**step))
    assert said == []


def test_a_resumed_watch_warns_as_one_that_was_not_interrupted():
    def sickness(i):
        return {"slope": 0.02, "shift": 9.0 * (i == 45)}

    expected = warnings_of(sickness)
    assert len(expected) > 2
    for stop in (3, 18, 44):
        assert warnings_of(sickness, restart=stop) == expected


def test_layers_are_named_by_their_number_and_stand_in_order():
    ones = np.ones((11, 2, 3), np.float32)
    params = {
        "embed": {"embedding": 2 * ones[0, :1].repeat(3, 0)},
        "decoder": {
            "layers": {"kernel": ones, "norm": {"scale": ones[:, 0]}},
            "norm": {"bias": ones},
        },
        **{f"encoder_{i}": {"unit": {"input": {"bias": ones[0] * i}}} for i in range(11)},
    }
    names = layer_names(params)
    assert names[:3] == ["decoder", "decoder/layers_0", "decoder/layers_1"]
    assert names[11:15] == ["decoder/layers_10", "embed", "encoder_0", "encoder_1"]
    assert stacks(names) == [("decoder/layers_0", "decoder/layers_10"), ("encoder_0", "encoder_10")]
    found = np.asarray(jax.jit(layer_norms)(params))
    norms = dict(zip(names, found.tolist(), strict=True))
    assert norms["decoder/layers_7"] == pytest.approx(3)
    assert norms["decoder"] == pytest.approx(66**0.5)
    assert norms["embed"] == pytest.approx(6)
    assert norms["encoder_10"] == pytest.approx(600**0.5)
    squares = sum(np.square(leaf).sum() for leaf in jax.tree.leaves(params))
    assert np.square(found).sum() == pytest.approx(float(squares))


def test_parameters_without_elements_are_not_summed():
    """Of attention without heads: jaxlib 0.11's compiler ended the process on their sum."""
    tree = {"layers_0": {"query": jnp.zeros((4, 0, 2)), "out": jnp.full((3,), 2.0)}}
    tree["layers_1"] = {"query": jnp.zeros((4, 0, 2))}
    np.testing.assert_allclose(layer_norms(tree), [12**0.5, 0.0], rtol=1e-6)
    summed = [e for e in jax.make_jaxpr(layer_norms)(tree).eqns if e.primitive.name == "reduce_sum"]
    assert [equation.invars[0].aval.size for equation in summed] == [3]
