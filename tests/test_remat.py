"""What the backward pass forgets and computes again changes memory, and no number."""

import functools

import jax
import numpy as np
import pytest
from model_cases import LANGUAGE_MODELS, SEQ2SEQ, VOCAB, make, sources, tokens

from benchmarks import harness, memory_options
from benchmarks.workloads import Workload
from models.remat import POLICIES

CASES = {
    "transformer": LANGUAGE_MODELS["transformer"],
    "transformer scan": {**LANGUAGE_MODELS["transformer"], "scan_layers": True},
    "lstm-attention": SEQ2SEQ["lstm-attention"],
}


@functools.cache
def gradients(name, remat):
    """(loss, gradients) with dropout, whose masks must come again."""
    model, variables = make(CASES[name], remat=remat, dropout_rate=0.3)
    inputs = (tokens(3, 6),) if model.kind == "language_model" else (sources(), tokens(3, 6))

    @jax.jit
    @jax.value_and_grad
    def loss(variables):
        found = model.apply(variables, *inputs, train=True, rngs={"dropout": jax.random.key(0)})
        return (found**2).mean()

    return jax.device_get(loss(variables))


LIGHT = {("transformer scan", "offload"), ("lstm-attention", "matrices")}


@pytest.mark.parametrize(
    ("name", "remat"),
    [
        pytest.param(name, remat, marks=() if (name, remat) in LIGHT else pytest.mark.heavy)
        for name in CASES
        for remat in POLICIES
    ],
)
def test_every_policy_has_the_gradients_of_none(name, remat):
    found, expected = (jax.tree.leaves(gradients(name, how)) for how in (remat, False))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_keeps_less_takes_less_memory():
    """Under a scan: XLA's CPU compiler keeps the activations of layers that stand side by side."""
    block = {**LANGUAGE_MODELS["transformer"], "num_layers": 4, "scan_layers": True}
    workload = Workload("", block, VOCAB, 8, 0, 64)
    policies = (True, "matrices", False)
    sizes = [memory_options.temporary_bytes(workload.changed(remat=remat)) for remat in policies]
    print(dict(zip(policies, sizes, strict=True)))
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.5 * sizes[-1]


@pytest.mark.heavy
def test_the_table_of_options_has_memory_and_time_of_each():
    workload = Workload("tiny", LANGUAGE_MODELS["transformer"], VOCAB, 4, 0, 8)
    options = {name: memory_options.OPTIONS[name] for name in ("nothing", "accumulate=4")}
    rows = memory_options.option_rows(workload, options, rounds=1)
    cells = [row.cells() for row in rows]
    print(harness.render(rows))
    assert [cell["what"] for cell in cells] == ["tiny: nothing", "tiny: accumulate=4"]
    assert cells[0]["temporary"].endswith("MiB, 1.00x")
    assert cells[0]["result"] == "1.00x time (1.00-1.00)"
