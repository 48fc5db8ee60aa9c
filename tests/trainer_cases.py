"""Tiny runs of the real trainer in this process, and what they come to."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest

import models
import tasks
import train
from training import checkpoint_reader, config_files, schema
from training.metrics import read_metrics
from training.trainer import Trainer

# Or the path of the cache would be a part of the key of what is in it. The variable is for the
# processes that are started here.
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")

TIMES = ("seconds", "tokens_per_second")  # the only fields in which equal runs differ

TRANSFORMER = {
    "model.d_model": 8,
    "model.d_ff": 16,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
}
LSTM = {
    "model.embedding_size": 8,
    "model.hidden_size": 8,
    "model.num_encoder_layers": 1,
    "model.num_decoder_layers": 1,
}
CONVOLUTIONAL = LSTM
LANGUAGE_MODEL = {"model.embedding_size": 8, "model.hidden_size": 8, "model.num_layers": 1}
# Everything that carries something from one step to the next is on; all batches have one shape.
FIELDS = {
    "model.dropout_rate": 0.2,
    "ema_decay": 0.9,
    "optimizer.clip_norm": 0.5,
    "diagnose_every": 2,
    "optimizer.learning_rate": 0.01,
    "task.tokens_per_batch": 64,
    "task.source.min_length": 2,
    "task.source.max_length": 5,
    "log_every": 3,
    "parallel.num_devices": 1,
}


def arguments(data_dir: Path, model: str = "transformer", **fields: Any) -> list[str]:
    """The command line of a tiny run, without --workdir; a field's dots are written "__"."""
    preset, sizes = {
        "transformer": ("transformer-tiny", TRANSFORMER),
        "lstm": ("lstm-attention-tiny", LSTM),
        "convolutional": ("conv-tiny", CONVOLUTIONAL),
        "language model": ("lm-lstm-tiny", LANGUAGE_MODEL),
    }[model]
    given = {name.replace("__", "."): value for name, value in fields.items()}
    if model == "language model":  # whose state goes from batch to batch
        config = "configs/language_model.py:"
        task = {"task.sequence_length": 6, "task.truncate": 10, "task.sequences_per_batch": 8}
        others = {name: value for name, value in FIELDS.items() if not name.startswith("task.")}
    else:
        config, task, others = "configs/synthetic.py:task=reverse,", {}, FIELDS
    values = sizes | others | task | {"data_dir": str(data_dir)} | given
    overrides = [f"--config.{name}={value}" for name, value in values.items()]
    return [f"--config={config}model={preset},smoke", *overrides]


def settings_of(argv: list[str]) -> dict:
    """The checked config of a command line."""
    config = config_files.load_config(argv[0].partition("=")[2], argv[1:])
    return schema.validate(config, models=models.MODELS, tasks=tasks.TASKS)


def tiny(data_dir: Path, model: str = "transformer", **fields: Any) -> dict:
    """The checked config of a tiny run."""
    return settings_of(arguments(data_dir, model, **fields))


# ---------------------------------------------------------------- what a run has come to


def without_times(tree: Any) -> Any:
    """The same JSON without the fields that no two runs share."""
    if isinstance(tree, dict):
        return {name: without_times(value) for name, value in tree.items() if name not in TIMES}
    return [without_times(item) for item in tree] if isinstance(tree, list) else tree


def arrays(workdir: Path, step: int | None = None, subtree: str = "") -> dict[str, tuple]:
    """Type, shape and bytes of every array of a checkpoint, by path."""
    _, tree, _ = checkpoint_reader.load(workdir / "checkpoints", step, subtree)
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(p): (x.dtype, x.shape, x.tobytes()) for p, x in leaves}


def all_finite(workdir: Path, step: int) -> bool:
    """Whether every number of a checkpoint is."""
    _, tree, _ = checkpoint_reader.load(workdir / "checkpoints", step)
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def rows(workdir: Path, split: str | None = None) -> list[str]:
    """The rows of metrics without their times, as texts, so that NaN equals NaN."""
    timeless = [row for row in read_metrics(workdir) if row["split"] != "goodput"]
    chosen = [row for row in timeless if split in (None, row["split"])]
    return [json.dumps(without_times(row), sort_keys=True) for row in chosen]


def outcome(workdir: Path) -> dict[str, Any]:
    """All that two runs of one config must have in common, bit for bit."""
    step, _, meta = checkpoint_reader.load(workdir / "checkpoints")
    result = json.loads((workdir / "result.json").read_text())
    return {
        "step": step,
        "state": arrays(workdir),
        "meta": without_times(meta),
        "rows": rows(workdir),
        "result": without_times(result),
    }


def assert_same_outcome(got: dict[str, Any], expected: dict[str, Any]) -> None:
    """Names the part, and the arrays, in which two runs differ."""
    for part in expected:
        if part == "state":
            assert got[part].keys() == expected[part].keys()
            differ = [name for name in expected[part] if got[part][name] != expected[part][name]]
            assert not differ, f"arrays differ: {differ}"
        else:
            assert got[part] == expected[part], part


def journal(workdir: Path, event: str | None = None) -> list[dict]:
    """The lines of a journal, all or those of one event."""
    lines = [json.loads(line) for line in (workdir / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if event in (None, line["event"])]


def tree_of(folder: Path) -> dict[str, tuple]:
    """Size, time of change and content of every file below a folder, but for the lock."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name != "lock":
            status, content = path.stat(), path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = (status.st_mtime_ns, content)
    return found


def as_after(run: Path, step: int, target: Path) -> Path:
    """The directory of a run as a kill after the checkpoint of a step leaves it.

    The metrics and the journal keep what came later.
    """
    others = shutil.ignore_patterns("checkpoints", "result.json", "events.*")
    shutil.copytree(run, target, ignore=others)
    shutil.copytree(run / "checkpoints" / str(step), target / "checkpoints" / str(step))
    return target


# ---------------------------------------------------------------- runs in this process


def make_data_dir(folder: Path, shared: bool = True) -> Path:
    """A config's data_dir that knows the programs which the tests have compiled before.

    Args:
        shared: what is compiled stays for later tests; a process that may be killed while
            it writes must not leave its torn files there.
    """
    compiled = Path(jax.config.jax_compilation_cache_dir).resolve()
    compiled.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    if shared:
        (folder / "xla").symlink_to(compiled)
    else:
        (folder / "xla").mkdir()
        for entry in compiled.iterdir():
            (folder / "xla" / entry.name).symlink_to(entry)
    return folder


class SharedTrainer(Trainer):
    """A Trainer that takes its compiled programs from an earlier one of the same config.

    All that a run has is made anew, but tracing, which is most of the time of a tiny run.
    """

    programs: ClassVar[dict[str, tuple]] = {}
    batches: ClassVar[
        list[tuple]
    ]  # (step, bytes of the batch), of all runs since the list was made

    def __init__(self, settings: dict, task: Any, *rest: Any) -> None:
        super().__init__(settings, task, *rest)
        parts = ("num_steps", "task", "model", "optimizer", "accumulate", "ema_decay", "parallel")
        key = f"{type(task).__name__} {json.dumps([settings[name] for name in parts])}"
        mine = (self._train_step, self._eval_step, self._flops)
        self._train_step, self._eval_step, self._flops = self.programs.setdefault(key, mine)

    def dispatch(self, step: int, batch: dict[str, np.ndarray]) -> None:
        content = b"".join(np.asarray(batch[name]).tobytes() for name in sorted(batch))
        self.batches.append((step, content))
        super().dispatch(step, batch)


def share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes train.train in this process cheap; what it writes stays as it is, but the picture."""
    monkeypatch.setattr(train, "Trainer", SharedTrainer)
    monkeypatch.setattr(SharedTrainer, "batches", [], raising=False)
    monkeypatch.setattr(train.report, "draw_curve", lambda directory: None)
    compiled = jax.config.jax_compilation_cache_dir
    update = jax.config.update

    def keep_cache(name: str, value: Any) -> None:
        update(name, compiled if name == "jax_compilation_cache_dir" else value)

    monkeypatch.setattr(jax.config, "update", keep_cache)
