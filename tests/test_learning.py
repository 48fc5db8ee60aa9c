"""The whole path on configs as they stand: every one runs, and the synthetic ones learn."""

from pathlib import Path

import pytest

import train
from training.metrics import read_metrics
from training.run_directory import RunDirectory

REPO = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    p.stem for p in (REPO / "configs").glob("*.py") if p.stem not in ("base", "__init__")
)
LM = "language_model:model=lm-lstm-tiny,"
SMOKE = [f"{name}:" for name in CONFIGS] + ["translation:model=lstm-attention-tiny,", LM]


def run(config: str, workdir: Path, data_dir: Path, *overrides: str) -> dict:
    name, _, arg = config.partition(":")
    arguments = [f"--config={REPO}/configs/{name}.py:{arg}", f"--workdir={workdir}"]
    arguments += [f"--config.data_dir={data_dir}", "--config.parallel.num_devices=1", *overrides]
    assert train.main(arguments) == 0
    return RunDirectory(workdir).result()


@pytest.mark.parametrize("config", SMOKE)
def test_every_config_runs_with_smoke_and_leaves_its_records(config, tmp_path, capsys):
    result = run(f"{config}smoke", tmp_path / "run", tmp_path / "data")
    assert result["scores"]["perplexity"] > 1
    rows = read_metrics(tmp_path / "run")
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    last = [row for row in rows if row["split"] == "train"][-1]
    counted = ("loss", "perplexity", "accuracy", "gradient_norm", "clipped_norm", "clip_rate")
    counted += ("learning_rate", "tokens", "examples", "flops", "seconds")
    assert all(last[name] >= 0 for name in counted)
    assert last["flops"] > 1e6
    for name in ("config.json", "environment.json", "curve.png", "tokenizer"):
        assert (tmp_path / "run" / name).exists()
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert str(tmp_path / "run" / "curve.png") in capsys.readouterr().out
    print(f"{len(SMOKE)} configs in all")


LEARNERS = [
    (task, model) for task in ("copy", "reverse") for model in ("transformer", "lstm-attention")
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "model"), LEARNERS)
def test_copy_and_reverse_are_learned(task, model, tmp_path):
    config = f"synthetic:task={task},model={model}-tiny"
    result = run(config, tmp_path / "run", tmp_path / "data")
    assert result["scores"]["accuracy"] >= 0.99
