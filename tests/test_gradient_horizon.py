"""How far the gradient reaches: against its formula, and the experiment from end to end."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
import train
from analysis import gradient_horizon as horizons
from experiments import gradient_horizon, memory_tasks
from tests import trainer_cases
from tests.test_truncated import settings

ROWS, LENGTH = 2, 6


def language_model(**block):
    model = models.build(block, vocab_size=9)
    params = models.init(model, jax.random.key(0))["params"]
    inputs_BT = jnp.array([[1, 2, 3, 4, 5, 6], [6, 4, 2, 1, 3, 5]])
    return model, params, inputs_BT, jnp.array([7, 8])


def test_a_tanh_network_multiplies_by_its_jacobians():
    """dL/dh_{t-1} = U (1 - h_t^2) dL/dh_t (Pascanu et al. 2013, equation 5)."""
    sized = {"embedding_size": 4, "hidden_size": 5, "num_layers": 1}
    model, params, inputs_BT, targets_B = language_model(name="recurrent_lm", cell="rnn", **sized)
    (found_BTH,) = horizons._through_steps(model, params, inputs_BT, targets_B)
    recurrent = np.asarray(params["stack"]["layers_0"]["unit"]["recurrent"])
    carry = model.init_carry(ROWS, LENGTH)
    for t in range(LENGTH - 1):
        carry, _ = model.apply({"params": params}, carry, inputs_BT[:, t], method="step")
        h_BH = np.asarray(jax.tree.leaves(carry)[0])
        if t:
            expected = (found_BTH[:, t] * (1 - h_BH**2)) @ recurrent.T
            np.testing.assert_allclose(found_BTH[:, t - 1], expected, rtol=1e-4, atol=1e-8)
    norms = horizons.horizon(model, params, inputs_BT, targets_B)
    assert norms.shape == (LENGTH - 1,)
    rows = np.linalg.norm(np.asarray(found_BTH), axis=-1)
    np.testing.assert_allclose(norms, np.sqrt(np.median(rows**2, axis=0))[::-1], rtol=1e-5)


def test_the_residual_stream_begins_with_the_embedding():
    sized = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_layers": 2}
    block = {"name": "transformer_lm", **sized, "tie_embeddings": False}
    model, params, inputs_BT, targets_B = language_model(**block)
    found = horizons._through_layers(model, params, inputs_BT, targets_B)
    assert [x.shape for x in found] == [(ROWS, LENGTH, 8)] * 2

    def loss(params):
        logits = model.apply({"params": params}, inputs_BT[:1])[0, -1]
        return -jax.nn.log_softmax(logits)[targets_B[0]]

    rows = jax.jit(jax.grad(loss))(params)["embed"]["embedding"][inputs_BT[0]]
    np.testing.assert_allclose(found[0][0] * 8**0.5, rows, rtol=1e-4, atol=1e-7)


def test_spectral_radii_are_those_of_each_gate():
    recurrent = np.concatenate([np.diag([0.5, -2.0]), np.eye(2), [[0, -3], [3, 0]]], axis=1)
    found = horizons.spectral_radii({"stack": {"unit": {"recurrent": recurrent}}})
    assert [(r.layer, r.gate) for r in found] == [("stack/unit", g) for g in ("r", "z", "new")]
    assert [r.radius for r in found] == pytest.approx([2, 1, 3])


def test_what_must_be_remembered():
    batch = jax.device_get(memory_tasks.draw_copy(jax.random.key(0), rows=4, delay=3))
    assert batch["inputs"].shape == (4, 5)
    assert (batch["inputs"][:, 1:4] == memory_tasks.BLANK).all()
    assert (batch["inputs"][:, 4] == memory_tasks.SIGN).all()
    assert (batch["targets"][:, -1] == batch["inputs"][:, 0]).all()
    assert (batch["weights"] == [0, 0, 0, 0, 1]).all()
    x_TBD, sums_B = jax.device_get(
        memory_tasks.adding_problem("GRU", 2, 50, 8).draw(jax.random.key(1))
    )
    assert x_TBD.shape == (8, 50, 2)
    assert (x_TBD[:4, :, 1].sum(0) == 1).all()
    assert (x_TBD[4:, :, 1].sum(0) == 1).all()
    np.testing.assert_allclose((x_TBD[..., 0] * x_TBD[..., 1]).sum(0), sums_B, rtol=1e-6)


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.heavy
def test_the_experiment_from_end_to_end(tmp_path, monkeypatch, capsys):
    one = {"GRU": memory_tasks.CELLS["GRU"]}
    monkeypatch.setattr(gradient_horizon, "CELLS", one)
    assert gradient_horizon.main(["--smoke", f"--out={tmp_path}"]) == 0
    assert "Wrote" in capsys.readouterr().out
    rows = read(tmp_path / "horizon.csv")
    sizes = gradient_horizon.SMOKE
    assert {row["model"] for row in rows} == {"GRU", "Transformer"}
    assert {int(row["k"]) for row in rows} == set(range(1, sizes.delay + 2))
    assert {int(row["step"]) for row in rows} == {0, 1, 2}
    assert all(float(row["gradient_norm"]) > 0 for row in rows)
    assert len(read(tmp_path / "radii.csv")) == 9
    assert [row["task"] for row in read(tmp_path / "memory.csv")] == ["delayed copy", "adding"]
    assert (tmp_path / "horizon.png").stat().st_size > 20_000


@pytest.mark.heavy
def test_a_run_at_its_checkpoints(tmp_path, monkeypatch, capsys):
    trainer_cases.share_programs(monkeypatch)
    run = tmp_path / "run"
    shorter = [f"--config.{name}=2" for name in ("num_steps", "eval_every")]
    train.train(settings(trainer_cases.make_data_dir(tmp_path / "data"), *shorter), run)
    assert gradient_horizon.main([f"--workdir={run}", f"--out={tmp_path / 'out'}"]) == 0
    rows = read(tmp_path / "out/horizon.csv")
    assert {(row["model"], row["step"]) for row in rows} == {
        ("recurrent_lm", "1"),
        ("recurrent_lm", "2"),
    }
    assert gradient_horizon.main([f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"]) == 64
    assert "is not a run directory" in capsys.readouterr().err
