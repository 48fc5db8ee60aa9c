"""The whole path on configs as they stand: every one runs, and the synthetic ones learn."""

import json
from pathlib import Path

import pytest

import train
from experiments import align
from trained import load_run, load_task
from training.metrics import read_metrics
from training.run_directory import RunDirectory

REPO = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    p.stem for p in (REPO / "configs").glob("*.py") if not p.stem.startswith(("base", "__"))
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
    assert {row["split"] for row in rows} == {"train", "validation", "test", "goodput"}
    last = [row for row in rows if row["split"] == "train"][-1]
    counted = ("loss", "perplexity", "accuracy", "gradient_norm", "clipped_norm", "clip_rate")
    counted += ("learning_rate", "tokens", "examples", "flops", "seconds")
    assert all(last[name] >= 0 for name in counted)
    assert last["flops"] > 1e6
    for name in ("config.json", "environment.json", "curve.png", "tokenizer"):
        assert (tmp_path / "run" / name).exists()
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert str(tmp_path / "run" / "curve.png") in capsys.readouterr().out
    found = load_run(tmp_path / "run", None)  # as every other command does
    assert load_task(found).vocab_size == found.tokenizer.vocab_size
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


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_the_links_of_the_toy_language_are_found(attention, tmp_path):
    """AER < 0.05 on sentences of one clause, by an LSTM of 64 units (experiments/LOG.md)."""
    settings = ["task.source.max_clauses=1", "num_steps=600", "eval_every=600", "save_every=600"]
    model = ("num_encoder_layers=1", "num_decoder_layers=1", "context_to=output")
    settings += [f"model.{option}" for option in (*model, f"attention={attention}")]
    config = "synthetic:task=toy_language,model=lstm-attention-tiny"
    overrides = [f"--config.{setting}" for setting in settings]
    run(config, tmp_path / "run", tmp_path / "data", *overrides)
    output = tmp_path / "links.json"
    assert align.main([f"--workdir={tmp_path / 'run'}", f"--output={output}"]) == 0
    assert json.loads(output.read_text())["scores"]["mean of all"]["aer"] < 0.05
