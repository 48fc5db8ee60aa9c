"""The commands that prune a run and train what is left of it from scratch."""

import csv
import json
from collections import Counter

import pytest

from experiments import head_pruning, prune_heads, train_pruned
from experiments.ablate_heads import batches_of
from experiments.heads_picture import curve_of
from trained import load_run, load_task


def test_masks_with_as_many_heads_are_one_place_of_a_curve():
    """Two penalties of gates that keep two heads: the band holds the intervals of both."""
    numbers = [(2, 0.5, 0.4, 0.6), (2, 1.5, 1.3, 1.7), (1, 3.0, 2.5, 3.5)]
    expected = {"kept": [1, 2], "mean": [3.0, 1.0], "low": [2.5, 0.4], "high": [3.5, 1.7]}
    for method, low, high in (("l0", [2.5, 0.4], [3.5, 1.7]), ("random", [3, 0.5], [3, 1.5])):
        points = [head_pruning.Point(method, 0, n, 9.0, *rest) for n, *rest in numbers]
        found = {name: values.tolist() for name, values in curve_of(points).items()}
        assert found == expected | {"low": low, "high": high}


def test_a_run_is_pruned(runs, tmp_path, capsys):
    arguments = [f"--workdir={runs['language-model']}", f"--output={tmp_path}", "--limit=4"]
    arguments += ["--steps=2", "--seeds=2", "--resamples=20", "--keep=1", "--gate_steps=1"]
    methods = "--methods=importance,weight_norm,random,l0"
    assert prune_heads.main([*arguments, methods]) == 0
    with (tmp_path / "pruning.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole = {row["loss"] for row in rows if row["kept"] == "4"}
    assert len(whole) == 1
    counts = Counter((row["method"], row["kept"]) for row in rows)
    for method, times in {"importance": 1, "weight_norm": 1, "random": 2}.items():
        assert {kept: counts[method, kept] for kept in "420"} == dict.fromkeys("420", times)
    for row in rows:
        assert row["parts"] == f"decoder {row['kept']}"  # a language model has no other part
    smaller = json.loads((tmp_path / "pruning.json").read_text())["smaller"]
    assert sum(smaller["heads_kept"]) == smaller["kept"] == 1
    assert smaller["largest_difference"] < 1e-5
    assert smaller["smaller"]["parameters"] < smaller["whole"]["parameters"]
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")
    assert "With 1 heads" in capsys.readouterr().out


def test_a_run_is_pruned_together_with_its_model(runs, tmp_path):
    arguments = [f"--workdir={runs['language-model']}", f"--output={tmp_path}", "--limit=4"]
    arguments += ["--resamples=20", "--gate_steps=2", "--steps=2", "--tune_model", "--tune_rate=1"]
    assert prune_heads.main([*arguments, "--methods=weight_norm,top_k"]) == 0
    with (tmp_path / "pruning.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    whole = {row["method"]: float(row["change"]) for row in rows if row["kept"] == "4"}
    assert whole["weight_norm"] == 0
    assert whole["top_k_tuned"] != 0  # it has learned for two steps
    assert {row["kept"] for row in rows if row["method"] == "top_k_tuned"} == {"4", "2"}


def test_a_model_with_these_heads_is_trained_from_scratch(runs, tmp_path, capsys):
    """One command trains it, measures it on the same examples and adds it to the curves."""
    study = tmp_path / "study"
    arguments = [f"--workdir={runs['language-model']}", f"--output={study}", "--limit=4"]
    arguments += ["--resamples=20", "--steps=2", "--keep=1", "--methods=importance"]
    assert prune_heads.main(arguments) == 0
    before = (study / "pruning.csv").read_text()
    given = [f"--workdir={runs['language-model']}", f"--pruning={study}", "--seed=3"]
    for _ in range(2):  # the second time the run is finished and its point is there
        assert train_pruned.main(given) == 0
    text = (study / "pruning.csv").read_text()
    assert text.startswith(before)
    (row,) = csv.DictReader([before.splitlines()[0], *text[len(before) :].splitlines()])
    assert (row["method"], row["seed"], row["kept"]) == (head_pruning.SCRATCH, "3", "1")
    config = json.loads((study / "from_scratch/seed=3/config.json").read_text())
    assert config["seed"] == 3
    smaller = json.loads((study / "pruning.json").read_text())["smaller"]
    assert config["model"]["heads_kept"] == smaller["heads_kept"]
    fresh = load_run(study / "from_scratch/seed=3", None)
    task = load_task(load_run(runs["language-model"], None))
    losses, weight = 0.0, 0.0
    for batch in batches_of(task, "test", 4):
        losses += float(task.token_losses(fresh.model, fresh.variables, batch)[0].sum())
        weight += float(batch["weights"].sum())
    assert float(row["loss"]) == pytest.approx(losses / weight, rel=1e-5)
    whole = float(text.splitlines()[1].split(",")[3])
    assert float(row["change"]) == pytest.approx(losses / weight - whole, abs=1e-5)
    assert "From scratch with 1 heads" in capsys.readouterr().out


def test_training_from_scratch_needs_a_study(runs, tmp_path, capsys):
    given = [f"--workdir={runs['language-model']}", f"--pruning={tmp_path}"]
    (tmp_path / "pruning.json").write_text("{}")
    assert train_pruned.main(given) == 64
    assert "knows of no smaller model" in capsys.readouterr().err
    assert train_pruned.main([*given[:1], f"--pruning={tmp_path / 'none'}"]) == 64
    assert "Run experiments/prune_heads.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods=importence"], "Unknown method: 'importence'. Did you mean 'importance'?"),
        (["--keep=9"], "--keep must be in 0 to 4, got 9."),
        (["--steps=0"], "--steps must be at least 1, got 0."),
        (["--tune_model"], "--tune_model needs a method with gates"),
        (["--tune_rate=0"], "--tune_rate must be above 0, got 0.0."),
    ],
)
def test_what_cannot_be_pruned_is_one_line(runs, capsys, arguments, sentence):
    given = [f"--workdir={runs['language-model']}", "--limit=4", *arguments]
    assert prune_heads.main(given) == 64
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]
