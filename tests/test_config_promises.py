"""What the configs promise in words: their commands, their sizes, and what a resume guards."""

import copy
import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import models
import tasks
from configs import base
from errors import ConfigError
from training import schema
from training.config_files import load_config

REPO = Path(__file__).resolve().parent.parent
CONFIGS = ("translation", "language_model", "synthetic", "gpt", "bert", "t5", "bart", "elmo")
RUNS = (
    "configs/translation.py",
    "configs/translation.py:model=lstm-attention-small",
    "configs/language_model.py",
    "configs/synthetic.py:task=addition",
)


def resolved(config: str, *overrides: str) -> dict:
    loaded = load_config(config, overrides)
    return schema.validate(loaded, models=models.MODELS, tasks=tasks.TASKS)


def test_the_commands_in_the_headers_are_valid():
    tried = 0
    for name in CONFIGS:
        header = importlib.import_module(f"configs.{name}").__doc__
        commands = re.findall(r"python train\.py --config=(\S+)", header)
        assert len(commands) >= 2
        for command in commands:
            assert command.startswith(f"configs/{name}.py")
            assert resolved(command)
            tried += 1
    print(f"{tried} commands")


def test_configs_are_read_without_jax():
    modules = ", ".join(f"configs.{name}" for name in CONFIGS)
    program = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPO, check=False).returncode == 0


def test_a_config_is_found_from_any_directory(tmp_path, monkeypatch):
    expected = resolved("configs/synthetic.py:task=sort")
    monkeypatch.chdir(tmp_path)
    assert resolved("configs/synthetic.py:task=sort") == expected
    mine = tmp_path / "configs" / "synthetic.py"
    mine.parent.mkdir()
    text = (REPO / "configs" / "synthetic.py").read_text(encoding="utf-8")
    mine.write_text(text.replace("num_steps = 1500", "num_steps = 1777"), encoding="utf-8")
    assert resolved("configs/synthetic.py")["num_steps"] == 1777  # the nearer one
    path = resolved("configs/translation.py:data=C:my/text")["task"]["source"]["path"]
    assert path == str(tmp_path / "C:my" / "text")  # and is still right elsewhere


def test_an_override_may_come_in_two_halves():
    halves = ["--config.seed", "3", "--config.optimizer.clip_norm", "0.5"]
    assert resolved(RUNS[0], *halves) == resolved(
        RUNS[0], "--config.seed=3", "--config.optimizer.clip_norm=0.5"
    )


def test_families_of_one_size_have_about_as_many_parameters_without_embeddings():
    sizes: dict[tuple, dict[str, int]] = {}
    for name, block in base.MODELS.items():
        model = models.build(block, vocab_size=1)  # one row of embeddings
        shapes = jax.eval_shape(lambda model=model: models.init(model, jax.random.key(0)))
        sizes.setdefault((model.kind, name.rpartition("-")[2]), {})[name] = models.num_parameters(
            shapes
        )
    for counts in sizes.values():
        print({name: f"{count / 1e6:.2f}M" for name, count in counts.items()})
        assert len(counts) >= 2
        assert max(counts.values()) < 1.5 * min(counts.values())


FREE = {
    *("num_steps", "eval_every", "save_every", "keep_checkpoints", "early_stopping_patience"),
    *(
        "average_checkpoints",
        "max_skipped_steps",
        "final_split",
        "profile",
        "data_dir",
        "log_every",
    ),
    *("diagnose_every", "init_from.allow"),
    *("optimizer.learning_rate", "task.num_beams", "task.length_penalty", "task.num_samples"),
    *("parallel.strategy", "parallel.num_devices", "parallel.mesh", "parallel.offload"),
}


def leaves(block: dict, prefix: str = ""):
    for name, value in block.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", block, name


@pytest.mark.parametrize("config", RUNS)
def test_every_field_of_a_run_is_guarded_unless_it_is_free(config):
    old = resolved(config)
    may_change = tasks.TASKS[old["task"]["name"]].may_change
    refused = 0
    for i, (path, _, _) in enumerate(leaves(old)):
        new = copy.deepcopy(old)
        _, block, name = list(leaves(new))[i]
        block[name] = [block[name]]  # differs from any value
        if path in FREE or path.startswith(("optimizer.schedule.", "parallel.rules.")):
            schema.compare_for_resume(schema.to_json(old), new, may_change)
            continue
        with pytest.raises(ConfigError) as caught:
            schema.compare_for_resume(schema.to_json(old), new, may_change)
        assert str(caught.value).startswith(f"config.{path} is ")
        refused += 1
    print(f"{refused} fields refused")
    assert refused >= 20


def test_the_refusal_has_both_values_and_counts_the_others():
    old = resolved(RUNS[0])
    overrides = ("model.d_model=512", "model.d_ff=512", "num_steps=700")
    new = resolved(RUNS[0], *(f"--config.{text}" for text in overrides))
    with pytest.raises(ConfigError) as caught:
        schema.compare_for_resume(schema.to_json(old), new)
    assert str(caught.value) == (
        "config.model.d_model is 512, but this run was started with 256 (1 more field differs). "
        "Set it back, or choose another --workdir."
    )


def test_a_field_that_no_version_knows_is_guarded():
    old, new = resolved(RUNS[0]), resolved(RUNS[0])
    new["parallel"]["reduce"] = "ring"  # what stands around it is free
    with pytest.raises(ConfigError, match=r"^config\.parallel\.reduce is 'ring', .*\(not there\)"):
        schema.compare_for_resume(schema.to_json(old), new)
    with pytest.raises(
        ConfigError, match=r"^config\.parallel\.reduce is '\(not there\)', .*'ring'"
    ):
        schema.compare_for_resume(schema.to_json(new), old)
