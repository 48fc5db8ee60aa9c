"""train.py as a command: what it says, where it says it, and with what code it leaves."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import train
from errors import DataError, python_command
from tests import trainer_cases
from tests.trainer_cases import arguments, journal, tree_of

NUM_STEPS = 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The arguments of a run that is done, and its directory."""
    place = tmp_path_factory.mktemp("finished")
    argv = arguments(trainer_cases.make_data_dir(place / "data"), "lstm", num_steps=NUM_STEPS)
    with pytest.MonkeyPatch.context() as patch:
        trainer_cases.share_programs(patch)
        assert train.main([*argv, f"--workdir={place / 'run'}"]) == 0
    return argv, place / "run"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer_cases.share_programs(monkeypatch)


def text_folder(folder: Path, **files: bytes) -> str:
    """The --config of a run on one's own text, three good splits but for the files given."""
    folder.mkdir()
    good = dict.fromkeys(("train", "validation", "test"), b"a b\tb a\nb c\tc b\n")
    for split, content in (good | files).items():
        (folder / f"{split}.tsv").write_bytes(content)
    return f"--config=configs/translation.py:data={folder}"


# Arguments after the good ones, or a function that gives them; exit code; what is said. Another
# --config has other fields, so it comes without those of the good arguments.
BAD: list[tuple[list[str] | Callable[[Path], list[str]], int, str]] = [
    (["--config.optimizer.learning_rat=1"], 64, "learning_rate"),
    (["--config.num_step=1"], 64, "num_steps"),
    (["--config.model.d_modle=8"], 64, "config.model.*d_modle"),
    (["--config.task.source.nmae=copy"], 64, "config.task.source.*'nmae'"),
    (["--config.task.name=translate"], 64, "translation"),
    (["--config.model.name=transformer"], 64, "transformer_"),
    (["--config.num_steps=0"], 64, "config.num_steps"),
    (["--config.num_steps=many"], 64, "config.num_steps.*many"),
    (["--config.ema_decay=1"], 64, "config.ema_decay"),
    (["--config.optimizer.learning_rate=-1"], 64, "config.optimizer.learning_rate"),
    (["--config.keep_checkpoints=1"], 64, "config.keep_checkpoints"),
    (["--config.average_checkpoints=9"], 64, "config.average_checkpoints"),
    (["--config.optimizer.schedule.warmup_steps=99"], 64, "warmup_steps"),
    (["--config.optimizer.name=adma"], 64, "adamw"),
    (["--config.parallel.strategy=ddp"], 64, "Known: mesh, pmap"),
    (["--config.parallel.num_devices=999"], 64, "config.parallel.num_devices"),
    (["--config.parallel.canonical_shards=3", "--config.parallel.num_devices=2"], 64, "shards"),
    (["--config.final_split=dev"], 64, "validation"),
    (["--config.seed=-1"], 64, "config.seed"),
    (["--config.optimizer=adamw"], 64, "config.optimizer is a block"),
    (["--config.num_steps"], 64, "config.num_steps needs a value"),
    (["--num_steps=5"], 64, "--num_steps"),
    (["--workdri=x"], 64, "--workdir"),
    (["extra"], 64, "extra"),
    (["--config=configs/translatoin.py"], 64, "configs/translation.py"),
    (["--config=translation"], 64, "FILE.py"),
    (["--config=configs/translation.py:modle=lstm-small"], 64, "model"),
    (["--config=configs/translation.py:model=lstm-smal"], 64, "lstm-small"),
    (["--config=configs/translation.py:seed=one,smoke"], 64, "seed"),
    (["--config.model={'name': 'transformer_lm'}"], 64, "needs a seq2seq, but .* language_model"),
    (
        ["--config=configs/translation.py:data=there/is/no/such/folder"],
        64,
        "source.path: .*no/such/folder",
    ),
    (lambda place: [text_folder(place / "text", train=b"a b\n")], 65, "train.tsv:1: 0 tabs"),
    (
        lambda place: [text_folder(place / "text", test=b"a\tb\nc\td\te\n")],
        65,
        "test.tsv:2: 2 tabs",
    ),
    (lambda place: [text_folder(place / "text", validation=b"")], 65, "validation.tsv.*empty"),
    (
        lambda place: [text_folder(place / "text", train=b"a\tb\n\xff\tb\n")],
        65,
        "train.tsv:2: .*UTF-8",
    ),
]


@pytest.mark.parametrize("where", ["new", "finished"])
def test_bad_input_gets_one_line_and_changes_nothing(
    where: str, tmp_path: Path, finished: tuple[list[str], Path], capfd: pytest.CaptureFixture
) -> None:
    argv, run = finished
    workdir = run if where == "finished" else tmp_path / "new"
    argv = [*argv, "--config.num_steps=4"]  # one more, or a finished run has nothing to refuse
    before = tree_of(run)
    general = [text for text in argv if "=configs/" in text or "data_dir" in text]
    for number, (extra, code, said) in enumerate(BAD):
        if callable(extra):
            (tmp_path / str(number)).mkdir()
            extra = extra(tmp_path / str(number))
            if where == "finished":
                code = 64  # another task than the run's, which is refused before the data is read
        good = general if extra[0].startswith("--config=") else argv
        capfd.readouterr()
        assert train.main([*good, f"--workdir={workdir}", *extra]) == code, extra
        captured = capfd.readouterr()
        assert captured.out == "", extra
        assert re.fullmatch(r"error: [^\n]*\n", captured.err), (extra, captured.err)
        if where == "new":
            assert re.search(said, captured.err), captured.err
        assert tree_of(run) == before
        assert not (tmp_path / "new").exists()
    print(f"{len(BAD)} bad command lines")


def test_a_bad_workdir_is_refused(
    tmp_path: Path, finished: tuple[list[str], Path], capfd: pytest.CaptureFixture
) -> None:
    argv, _ = finished
    (tmp_path / "file").write_text("text")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_text("cat")
    before = tree_of(tmp_path)
    cases = {
        str(tmp_path / "file"): (64, "is a file"),
        str(tmp_path / "photos"): (64, "'cat.jpg' but no journal.jsonl"),
        str(tmp_path / "file/below"): (74, "file/below"),
        "/proc/no/such/place": (74, "/proc/no/such/place"),
    }
    for workdir, (code, said) in cases.items():
        capfd.readouterr()
        assert train.main([*argv, f"--workdir={workdir}"]) == code, workdir
        captured = capfd.readouterr()
        assert captured.out == ""
        assert re.fullmatch(r"error: [^\n]*\n", captured.err), captured.err
        assert said in captured.err
        assert tree_of(tmp_path) == before
    print(f"{len(cases)} bad places")


def test_missing_arguments_are_named(capfd: pytest.CaptureFixture) -> None:
    for argv, said in ([], "--config"), (["--config=configs/synthetic.py"], "--workdir"):
        assert train.main(argv) == 64
        captured = capfd.readouterr()
        assert captured.out == ""
        assert re.fullmatch(r"error: [^\n]*\n", captured.err), captured.err
        assert said in captured.err


def test_a_finished_run_says_so_and_goes_on_when_there_are_more_steps(
    finished: tuple[list[str], Path], capfd: pytest.CaptureFixture, tmp_path: Path
) -> None:
    argv, run = finished
    before = tree_of(run)
    assert train.main([*argv, f"--workdir={run}"]) == 0
    captured = capfd.readouterr()
    assert f"This run is finished (step {NUM_STEPS})" in captured.out
    assert "test perplexity" in captured.out
    assert captured.err == ""
    assert tree_of(run) == before
    assert train.main([*argv, f"--workdir={run}", "--config.num_steps=5"]) == 0
    captured = capfd.readouterr()
    assert "This run is finished" not in captured.out
    assert journal(run, "restore")[-1]["step"] == NUM_STEPS
    assert journal(run, "config_change")[-1]["field"] == "config.num_steps"
    assert json.loads((run / "result.json").read_text())["step"] == 5


def test_printed_commands_begin_with_the_interpreter_as_one_types_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the working directory, on the path, or anywhere else; a link is another environment."""
    ours, other = tmp_path / "here/.venv/bin", tmp_path / "usr/bin"
    for folder in (ours, other):
        folder.mkdir(parents=True)
    for path in (other / "python3.12", other / "my python"):
        path.write_text("")
        path.chmod(0o755)
    for link in (other / "python", other / "python3", ours / "python"):
        link.symlink_to(other / "python3.12")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(other))
    for own, expected in {
        ours / "python": ".venv/bin/python",
        other / "python3": "python",
        other / "my python": f"'{other}/my python'",
    }.items():
        monkeypatch.setattr(sys, "executable", str(own))
        assert python_command("train.py", "--out=a b") == f"{expected} train.py '--out=a b'"
    monkeypatch.setattr(sys, "executable", str(ours / "python"))
    monkeypatch.chdir(tmp_path / "usr")
    assert python_command() == str(ours / "python")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "lib/python"))
    assert python_command() == str(tmp_path / "lib/python")


def test_debug_gives_a_traceback_and_stays_out_of_the_way(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    argv = [text_folder(tmp_path / "text", train=b"a\n"), f"--workdir={tmp_path / 'new'}"]
    with pytest.raises(DataError, match=r"train.tsv:1"):
        train.main([*argv, "--debug"])
    assert os.listdir(tmp_path) == ["text"]
