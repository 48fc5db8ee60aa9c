"""The command that translates says in a sentence whatever is wrong, and damages nothing."""

import os
import shutil
from pathlib import Path

import pytest
from translate_cases import digest, run_command

import trained


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    """A run directory that the test may damage."""
    return shutil.copytree(runs["transformer"], tmp_path / "run")


NUMBER = "must be a whole number of at least"
ARGUMENTS = [
    ("--num_beams=0", f"Argument --num_beams: {NUMBER} 1, got '0'."),
    ("--num_beams=two", f"Argument --num_beams: {NUMBER} 1, got 'two'."),
    ("--batch_size=-1", f"Argument --batch_size: {NUMBER} 1, got '-1'."),
    ("--max_length=1", f"Argument --max_length: {NUMBER} 2, got '1'."),
    ("--checkpoint=1.5", f"Argument --checkpoint: {NUMBER} 0, got '1.5'."),
    ("--length_penalty=-1", "Argument --length_penalty: must be a number of at least 0, got '-1'."),
    (
        "--length_penalty=nan",
        "Argument --length_penalty: must be a number of at least 0, got 'nan'.",
    ),
    ("--num_beam=3", "Unknown argument: '--num_beam'. Did you mean '--num_beams'? Known: "),
    ("--checkpoint=7", "No checkpoint of step 7 in "),
]


@pytest.mark.parametrize(("argument", "sentence"), ARGUMENTS)
def test_wrong_arguments(runs, argument, sentence, capfdbinary):
    before = digest(runs["transformer"])
    code, out, err = run_command(capfdbinary, f"--workdir={runs['transformer']}", argument)
    assert (code, out) == (64, b"")
    assert err.startswith(f"error: {sentence}")
    assert err.count("\n") == 1
    assert digest(runs["transformer"]) == before


def test_missing_arguments_and_files(runs, tmp_path, capfdbinary):
    workdir, nowhere = f"--workdir={runs['transformer']}", tmp_path / "nowhere"
    cases = [
        ([], 64, "The following arguments are required: --workdir."),
        ([f"--workdir={nowhere}"], 64, f"--workdir {nowhere} is not a run directory"),
        ([f"--workdir={tmp_path}"], 64, f"--workdir {tmp_path} is not a run directory"),
        ([f"--workdir={runs['language-model']}"], 64, f"--workdir {runs['language-model']} holds"),
        ([workdir, f"--input={nowhere}"], 65, f"{nowhere}: cannot be read: No such file"),
        ([workdir, f"--input={tmp_path}"], 65, f"{tmp_path}: cannot be read: Is a directory"),
        ([workdir, f"--attention={nowhere}/x"], 74, f"--attention {nowhere}/x: No such file"),
    ]
    file = tmp_path / "source.txt"
    file.write_text("a b\n")
    no_attention = [f"--workdir={runs['lstm']}", f"--input={file}", f"--attention={file}.npz"]
    cases.append((no_attention, 64, f"--attention {file}.npz: this model has no attention."))
    for arguments, code, sentence in cases:
        got, out, err = run_command(capfdbinary, *arguments)
        assert (got, out) == (code, b""), err
        assert err.startswith(f"error: {sentence}"), err
        assert err.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["source.txt"]
    print(f"{len(cases)} cases")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


DAMAGES = {
    "config cut short": (65, lambda run: (run / "config.json").write_text('{"seed": ')),
    "config is a list": (65, lambda run: (run / "config.json").write_text("[]")),
    "config has no model": (65, lambda run: edit(run / "config.json", '"model"', '"modle"')),
    "config has bytes": (65, lambda run: (run / "config.json").write_bytes(b"\xff\xfe\x00")),
    "another size": (65, lambda run: edit(run / "config.json", '"d_ff": 256', '"d_ff": 128')),
    "no tokenizer": (65, lambda run: shutil.rmtree(run / "tokenizer")),
    "tokenizer": (65, lambda run: edit(run / "tokenizer/tokenizer.json", '"a"', '"q"')),
    "no checkpoints": (64, lambda run: shutil.rmtree(run / "checkpoints")),
    "all checkpoints": (
        74,
        lambda run: [flip(path) for path in (run / "checkpoints").glob("*/manifest.json")],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_run_directories(copied, damage, capfdbinary, caplog):
    code, harm = DAMAGES[damage]
    harm(copied)
    before = digest(copied)
    got, out, err = run_command(capfdbinary, f"--workdir={copied}", "--input=/dev/null")
    assert (got, out) == (code, b""), err
    assert err.startswith("error: ")
    assert str(copied) in err
    assert err.count("\n") == 1
    assert digest(copied) == before
    print(err, [record.getMessage() for record in caplog.records])


def test_a_damaged_checkpoint_is_passed_over(copied, capfdbinary, caplog):
    flip(copied / "checkpoints/3/manifest.json")
    assert trained.load_run(copied, "seq2seq").steps == [2]
    assert "Checkpoint" in caplog.text
    code, out, err = run_command(capfdbinary, f"--workdir={copied}", "--checkpoint=3")
    assert (code, out) == (74, b"")
    assert err.startswith("error: No checkpoint in ")
