"""The command that ablates heads: what it writes, and its refusals in one line."""

import csv
import json

import numpy as np
import pytest
import translate_cases

import data
import trained
from errors import DataError
from experiments import ablate_heads, prune_heads
from experiments.head_tables import read_effects
from training import config_files

QUICK = ["--limit=8", "--resamples=50"]


def table(folder) -> list[dict[str, str]]:
    with (folder / "heads.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_is_ablated(runs, tmp_path, capsys):
    output = tmp_path / "analysis"
    arguments = [f"--workdir={runs['transformer']}", f"--output={output}", *QUICK]
    assert ablate_heads.main([*arguments, "--bleu"]) == 0
    rows = table(output)
    kept = json.loads((output / "heads.json").read_text())
    assert [head._asdict() for head in read_effects(tmp_path)] == [
        {"part": row["part"], "layer": int(row["layer"]), "head": int(row["head"])} for row in rows
    ]  # as the other commands about heads read it
    assert len(rows) == len(kept["heads"]) > 0
    assert {row["part"] for row in rows} == {"encoder", "decoder", "cross"}
    for row, head in zip(rows, kept["heads"], strict=True):
        change = float(row["loss_without"]) - kept["loss"]
        assert float(row["change"]) == pytest.approx(change, abs=1e-5)
        assert float(row["low"]) <= float(row["high"])
        assert 0 < float(row["p"]) <= 1
        assert head["bleu_low"] <= head["bleu_high"]
    assert kept["seconds_per_head"] > 0
    assert set(kept["fingerprint"]) == {"data", "tokenizer"}
    assert kept["steps"]
    assert (output / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert "seconds" not in capsys.readouterr().err
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["language-model", "lstm-attention"])
def test_heads_of_language_models_and_alignments(runs, tmp_path, name):
    arguments = [f"--workdir={runs[name]}", f"--output={tmp_path}", "--normalise", *QUICK]
    assert ablate_heads.main([*arguments, "--kind=mean"]) == 0
    rows = table(tmp_path)
    part = {"language-model": "decoder", "lstm-attention": "alignment"}[name]
    assert {row["part"] for row in rows} == {part}
    layers = [int(row["layer"]) for row in rows]
    squares = np.square([float(row["importance_token"]) for row in rows])
    np.testing.assert_allclose(np.bincount(layers, squares), 1, rtol=1e-4)


def test_a_classifier_is_refused_in_one_line(tmp_path, capsys):
    """Its losses are of texts, not of tokens; its heads would stand in no part."""
    config = config_files.load_config("configs/classification.py:smoke")
    run = translate_cases.save_run(tmp_path / "run", tmp_path, config)
    for command in (ablate_heads, prune_heads):
        assert command.main([f"--workdir={run}"]) == 64
        err = capsys.readouterr().err
        assert "holds classifier, a model of kind classifier; this needs kind seq2seq" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--workdir={tmp}/nothing"], 64, "is not a run directory"),
        (["--workdir={lstm}"], 64, "RecurrentSeq2Seq has no attention, so no heads."),
        (["--workdir={transformer}", "--checkpoint=9"], 64, "9"),
        (["--workdir={transformer}", "--limit=-1"], 64, "--limit must be at least 0, got -1."),
        (["--workdir={transformer}", "--kind=resample", "--bleu"], 64, "--bleu needs --kind"),
        (["--workdir={language-model}", "--bleu"], 64, "--bleu needs a run of task translation"),
        (["--workdir={transformer}", "--split=dev"], 64, "invalid choice: 'dev'"),
    ],
)
def test_what_cannot_be_done_is_one_line(runs, tmp_path, capsys, arguments, code, sentence):
    given = [argument.format(tmp=tmp_path, **runs) for argument in arguments]
    assert ablate_heads.main([*given, f"--output={tmp_path / 'out'}"]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert sentence in lines[0]
    assert not (tmp_path / "out").exists()


def test_bleu_is_of_the_examples_that_the_loss_is_of(runs):
    """Not of the first ones of the split, which a limit would take."""
    task = trained.load_task(trained.load_run(runs["transformer"], None))
    batches = ablate_heads.batches_of(task, "train", 8)
    found = ablate_heads.examples_of(task, "train", batches)
    assert found != task.source.pairs("train")[: len(found)]
    rows = [ids for batch in batches for ids in batch["source"].tolist() if any(ids)]
    read = [[*task.tokenizer.encode(example.source), data.EOS] for example in found]
    assert sorted(read) == sorted([id for id in row if id != data.PAD] for row in rows)


def test_data_that_have_changed_since_training_are_refused(runs):
    run = trained.load_run(runs["transformer"], None)
    digest = trained.load_task(run).fingerprint()["data"]
    assert trained.load_task(run._replace(data_digest=digest))
    with pytest.raises(DataError, match="others now"):
        trained.load_task(run._replace(data_digest="another"))
