"""Run directories to translate with: as training leaves them, with random parameters."""

import hashlib
from pathlib import Path
from typing import Any

import jax

import models
import tasks
from experiments import translate
from training import config_files, schema
from training.checkpoints import Checkpointer
from training.run_directory import RunDirectory

REPO = Path(__file__).resolve().parent.parent
PRESETS = {
    "transformer": "transformer-tiny",
    "lstm-attention": "lstm-attention-tiny",
    "lstm": "lstm-tiny",
    "language-model": "lm-transformer-tiny",
}
LINES = ["a b c", "", "d e f g h", "unknown", "   ", "c a", "c a"]


def params_of(model, steps=(1, 2, 3)) -> dict[int, dict]:
    """Random parameters, others for each step."""
    first = models.init(model, jax.random.key(0))["params"]

    def scaled(step: int) -> dict:
        return jax.tree.map(lambda leaf: leaf * (1 + 0.1 * step), first)

    return {step: scaled(step) for step in steps}


def make_runs(folder: Path) -> dict[str, Path]:
    """One run directory for each preset."""
    return {name: make_run(folder / name, folder, preset) for name, preset in PRESETS.items()}


def make_run(folder: Path, data_dir: Path, preset: str, **fields) -> Path:
    """A run directory as training leaves it, with checkpoints 1 to 3 of random parameters."""
    file = "language_model" if preset.startswith("lm-") else "synthetic"
    config = config_files.load_config(f"configs/{file}.py:model={preset},smoke")
    config.update(fields)
    return save_run(folder, data_dir, config)


def save_run(folder: Path, data_dir: Path, config) -> Path:
    """The same with any config."""
    config.data_dir = str(data_dir)
    settings = schema.validate(config, models=models.MODELS, tasks=tasks.TASKS)
    run = RunDirectory(folder)
    with run.lock():
        run.write_config(schema.to_json(settings))
        task: Any = tasks.build(settings["task"], settings["seed"], str(data_dir))
        task.save(run.path)
        model = models.build(settings["model"], task.vocab_size)
        with Checkpointer(run.checkpoints, keep=3, fingerprint={}) as saver:
            for step, params in params_of(model).items():
                state = {"params": params, "ema_params": jax.tree.map(lambda x: x / 2, params)}
                saver.save(step, state, {"best": {"step": 2}})
    return folder


def run_command(capfdbinary, *arguments: str) -> tuple[int, bytes, str]:
    code = translate.main(arguments)
    found = capfdbinary.readouterr()
    return code, found.out, found.err.decode()


def digest(folder: Path) -> str:
    parts = sorted((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(repr(parts).encode()).hexdigest()
