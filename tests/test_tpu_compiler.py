"""The train step of every model compiles for TPUs: nothing may turn out not to run there.

XLA's own compiler for TPUs, of the package libtpu, without a TPU; models are those of the contract
tests. What is compiled is the step of train.py with all that a config adds to it.
"""

import jax
import pytest
from family_cases import ENCODERS
from model_cases import LANGUAGE_MODELS, RECURRENT, SEQ2SEQ

import models
import train
from experiments.planning import compiler, stand_in, targets
from models.attention import MECHANISMS
from models.attention.scores import COVERED, SCORES
from training.config_files import load_config

TOPOLOGY = "v5e:2x4"
MESH = (2, 2, 2)
SMALL = {
    "task.sequence_length": 16,
    "task.sequences_per_batch": 8,
    "task.tokens_per_batch": 64,
    "task.max_length": 8,
    "task.texts_per_batch": 8,
}

# Config and model block by name. One of each kind, and what is most its own, is compiled by
# .ci/run; `make test-long` compiles all.
CASES: dict[str, tuple[str, dict]] = {
    **{f"lm-{name}": ("language_model", block) for name, block in LANGUAGE_MODELS.items()},
    **{f"seq2seq-{name}": ("translation", block) for name, block in SEQ2SEQ.items()},
    **{f"encoder-{name}": ("bert", block) for name, block in ENCODERS.items()},
    **{
        f"attention-{name}": (
            "language_model",
            LANGUAGE_MODELS["transformer"] | {"attention": name, "attention_block": 6},
        )
        for name in MECHANISMS
    },
    **{
        f"score-{name}": ("translation", {**SEQ2SEQ["lstm-attention"], "attention": name})
        for name in SCORES
    },
    **{
        f"coverage-{name}": (
            "translation",
            {**SEQ2SEQ["lstm-attention"], "attention": name, "coverage": True},
        )
        for name in COVERED
    },
    "elmo": ("elmo", {"name": "elmo", **RECURRENT}),
    "classifier-encoder": ("classification", {"inner": ENCODERS["bert"]}),
    "classifier-lm": ("classification", {"inner": LANGUAGE_MODELS["lstm"]}),
    "classifier-elmo": ("classification", {"inner": {"name": "elmo", **RECURRENT}, "head": "lstm"}),
    "supporting-facts": ("memory_network", {}),
}
IN_CI = {
    "lm-transformer-scan-remat",
    "lm-transformer-rotary-grouped",
    "lm-lstm-everything",
    "seq2seq-transformer-t5",
    "seq2seq-lstm-attention",
    "seq2seq-convolutional-attention",
    "encoder-bert",
    "score-local_p",
    "elmo",
    "classifier-lm",
    "supporting-facts",
}


def settings_of(config: str, block: dict) -> dict:
    """Checked settings of a tiny run with a model of that block."""
    loaded = load_config(f"configs/{config}.py:smoke")
    for field, value in SMALL.items():
        stories = (config, field) == ("memory_network", "task.max_length")  # are longer
        if field.removeprefix("task.") in loaded.task and not stories:
            loaded.task[field.removeprefix("task.")] = value
    if config == "classification":
        kind = models.MODELS[block["inner"]["name"]].kind
        loaded.task.layout = "encoder" if kind == "encoder" else "language_model"
        loaded.task.lm_weight = 0.5 if kind == "language_model" else 0.0
        loaded.model = {**loaded.model.to_dict(), **block}
    elif block:
        loaded.model = block
        if config == "bert":
            loaded.task.nsp = block.get("num_types", 2) > 1
    return train.check(loaded)


def test_every_family_and_every_attention_is_covered():
    used = {block.get("name", "classifier") for _, block in CASES.values()}
    assert used >= set(models.MODELS)
    assert {name.partition("-")[2] for name in CASES} >= {*MECHANISMS, *SCORES, *COVERED}
    assert set(CASES) >= IN_CI


@pytest.fixture
def _without_flags(monkeypatch):
    """A flag that libtpu does not know ends the process; JAX has read them by now."""
    jax.devices()
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def case(name: str):
    marks = [] if name in IN_CI else [pytest.mark.slow]
    return pytest.param(name, marks=marks)


@pytest.mark.usefixtures("_without_flags")
@pytest.mark.heavy
@pytest.mark.tpu_compiler
@pytest.mark.parametrize("name", [case(name) for name in CASES])
def test_the_train_step_compiles_for_a_tpu(name):
    settings = settings_of(*CASES[name])
    devices = targets.tpu_devices(TOPOLOGY)
    for strategy in ("pmap", "mesh"):
        block = {**settings["parallel"], "strategy": strategy, "mesh": MESH}
        given = stand_in.stand_in(settings)
        trainer = compiler.build({**settings, "parallel": block}, given, devices)
        compiled = compiler.compile_step(trainer, given.batch)
        assert compiled.memory > 0
        if compiled.program:
            assert "all-reduce" in {one.kind for one in compiled.program.collectives}
    jax.clear_caches()


@pytest.mark.usefixtures("_without_flags")
@pytest.mark.heavy
@pytest.mark.tpu_compiler
@pytest.mark.parametrize("mesh", [(1, 8, 1), (2, 2, 2)])
def test_a_tpu_may_leave_moments_with_its_host(mesh):
    settings = settings_of(*CASES["lm-transformer-scan-remat"])
    devices = targets.tpu_devices(TOPOLOGY)
    block = {**settings["parallel"], "strategy": "mesh", "mesh": mesh, "offload": "moments"}
    given = stand_in.stand_in(settings)
    trainer = compiler.build({**settings, "parallel": block}, given, devices)
    found = compiler.compile_step(trainer, given.batch)
    state = trainer.abstract.opt_state
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert found.host > whole / 16  # of the layouts of a TPU, which fill up small arrays
    jax.clear_caches()
