"""The comparison of pretrained and fresh models adds up, and goes on where it stopped."""

import csv
import json
from argparse import Namespace

import pytest

import train
from errors import ConfigError
from experiments import pretraining
from experiments.comparison import plan
from experiments.pretraining import Point, summary, table
from training import schema
from training.run_directory import RunDirectory

SCORES = {("pretrained", 0.1): (0.7, 0.8), ("scratch", 0.1): (0.5, 0.7)}


def test_the_summary_pairs_runs_by_seed():
    points = [
        Point("m", start, fraction, seed, 100, score)
        for (start, fraction), scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]
    points.append(Point("other", "pretrained", 0.1, 0, 100, 0.0))
    points.append(Point("other", "scratch", 0.1, 0, 100, 0.25))
    first, second = summary(points)
    assert first["pretrained"] == pytest.approx(0.75)
    assert first["scratch"] == pytest.approx(0.6)
    assert (first["scratch_least"], first["scratch_most"]) == (0.5, 0.7)
    assert first["gain"] == pytest.approx(0.15)
    assert 0.1 <= first["low"] < first["gain"] < first["high"] <= 0.2
    assert second["gain"] == -0.25
    lines = table([first, second]).splitlines()
    assert "0.750 (0.700 to 0.800)" in lines[1]
    assert lines[1].endswith("+0.150")


BAD = {
    "--models=gpt3-tiny": "gpt2-tiny",
    "--fractions=0": "--fractions",
    "--seeds=none": "--seeds",
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_arguments_are_one_line_and_nothing_is_written(argument, tmp_path, capsys):
    assert pretraining.main([f"--out={tmp_path / 'out'}", argument]) == 64
    assert BAD[argument] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_of_earlier_options_are_not_taken(tmp_path, monkeypatch):
    trained = []

    def finished(settings, folder):
        run = RunDirectory(folder)
        run.path.mkdir(parents=True)
        run.journal("start")
        run.write_config(schema.to_json(settings))
        run.finish({"step": 1})
        trained.append(folder)

    monkeypatch.setattr(train, "train", finished)
    options = Namespace(out=tmp_path, smoke=False, overrides=[], learning_rate=5e-4, steps=1000)
    for options.pretrain_steps in (2000, 2000):
        run = pretraining.pretrain("lm-lstm-tiny", options)
    older = json.loads((run / "config.json").read_text())
    del older["task"]["num_samples"]  # a run of before there were any: no score sees them
    (run / "config.json").write_text(json.dumps(older))
    assert pretraining.pretrain("lm-lstm-tiny", options) == run
    assert len(trained) == 1
    options.pretrain_steps = 3000
    with pytest.raises(ConfigError, match=rf"{run} was trained with config.num_steps 2000, not 30"):
        pretraining.pretrain("lm-lstm-tiny", options)

    def tuned():
        return [
            (pretraining.fine_tuning(run, start, 1.0, 0, options), tmp_path / "tuned" / start)
            for start in ("scratch", "pretrained")
        ]

    plan.train_all(tuned()[:1])
    options.learning_rate = 1e-3
    with pytest.raises(ConfigError, match=r"scratch .*optimizer.learning_rate 0.0005, not 0.001"):
        plan.train_all(tuned()[::-1])
    options.learning_rate = 5e-4
    options.overrides = ["--config.data_dir=elsewhere", "--config.log_every=7"]  # of no account
    plan.train_all(tuned())
    assert trained == [run, *(tmp_path / "tuned" / start for start in ("scratch", "pretrained"))]


@pytest.mark.heavy
def test_both_starts_are_trained_once_and_differ_in_their_start_alone(tmp_path, capsys):
    arguments = [f"--out={tmp_path}", "--smoke", "--models=lm-lstm-tiny", "--fractions=1"]
    arguments += ["--seeds=1", f"--config.data_dir={tmp_path / 'data'}"]
    assert pretraining.main(arguments) == 0
    said = capsys.readouterr()
    assert said.err.count("parameters filled from trained models") == 1
    with open(tmp_path / "pretraining.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["start"] for row in rows] == ["pretrained", "scratch"]
    assert (tmp_path / "pretraining.png").stat().st_size > 10_000
    digests = [
        (tmp_path / f"lm-lstm-tiny/{start}-1/seed=0/tokenizer/tokenizer.json").read_bytes()
        for start in ("pretrained", "scratch")
    ]
    assert digests[0] == digests[1]
    assert pretraining.main(arguments) == 0
    assert capsys.readouterr().err.count("is done") == 3
