"""Malformed configs, data, tokenizers and checkpoints: one line, its exit code, no harm."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import data
import train
from errors import ConfigError, DataError, SeqlabError, StorageError
from tests import trainer_cases
from tests.malformed_cases import BASES, wrong_fields, wrong_json, wrong_rows
from tests.storms import Storm, assert_all_caught
from tests.trainer_cases import settings_of, tiny, tree_of
from training import checkpoint_reader, manifest, schema


def say_one_line(argv: list[str], workdir: Path, capfd: pytest.CaptureFixture) -> str:
    """What the command says; it must leave with 64 and make nothing."""
    assert train.main([*argv, f"--workdir={workdir}"]) == 64
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 2000
    assert not workdir.exists()
    return captured.err


@pytest.mark.parametrize(
    ("base", "every"),
    [(BASES[0], 12), *(pytest.param(base, 1, marks=pytest.mark.slow) for base in BASES)],
)
def test_wrong_fields(tmp_path: Path, capfd: pytest.CaptureFixture, base: str, every: int) -> None:
    """Every field of a config with values of other types, and with its name misspelt."""
    cases = list(wrong_fields(settings_of([f"--config={base}"])))[::every]
    with Storm(f"wrong fields of {base}", 15) as storm:
        for argument, name in cases:
            with storm.trial(argument):
                said = say_one_line([f"--config={base}", argument], tmp_path / "run", capfd)
                assert name.split(".")[-1][:3] in said
        storm_end(capfd)


def storm_end(capfd: pytest.CaptureFixture) -> None:
    """What was captured is thrown away, so that the storm's own line is seen."""
    capfd.readouterr()


def read_all(folder: Path) -> None:
    source = data.build_source({"name": "folder", "path": str(folder)}, "")
    for name in data.SPLITS:
        source.pairs(name)


@pytest.mark.parametrize("trials", [11, pytest.param(110, marks=pytest.mark.slow)])
def test_wrong_rows(tmp_path: Path, trials: int) -> None:
    good = b"uno\tone\ndue\ttwo\n"
    with Storm("wrong rows", trials) as storm:
        for number, (what, content) in enumerate(wrong_rows(trials, trials)):
            with storm.trial(what):
                folder = tmp_path / str(number)
                folder.mkdir()
                split = data.SPLITS[number % 3]
                for name in data.SPLITS:
                    (folder / f"{name}.tsv").write_bytes(content if name == split else good)
                before = tree_of(folder)
                with pytest.raises(DataError, match=rf"{split}\.tsv") as caught:
                    read_all(folder)
                assert "\n" not in str(caught.value)
                assert f":{what.rpartition(' ')[2]}:" in str(caught.value)
                assert tree_of(folder) == before


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, Path]:
    """A finished run and its settings."""
    trainer_cases.share_programs(monkeypatch)
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    settings = tiny(data_dir, "lstm", num_steps=2, eval_every=2, save_every=2)
    train.train(settings, tmp_path / "whole")
    return settings, tmp_path / "whole"


def refusal(read: Callable[[], object]) -> tuple[str, int]:
    """What was said and the exit code; nothing and 0 where a file was taken as it is."""
    try:
        read()
    except SeqlabError as error:
        return str(error), error.exit_code
    return "", 0


# A file of a run, how often it is damaged in the fast and the long storm, and who reads it.
RECORDS = {
    "config.json": (4, 40),
    "result.json": (4, 40),
    "tokenizer": (4, 60),
    "manifest": (4, 60),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_wrong_records(tmp_path: Path, run: tuple[dict, Path], long: bool) -> None:
    """A run directory with a damaged file: refused in a line, or as whole as before."""
    settings, whole = run
    least = sum(numbers[long] for numbers in RECORDS.values()) // 2
    with Storm("wrong records", least) as storm:
        for record, numbers in RECORDS.items():
            name = {"tokenizer": "tokenizer/*.json", "manifest": "checkpoints/2/manifest.json"}
            [file, *_] = sorted(whole.glob(name.get(record, record)))
            for number, (what, content) in enumerate(wrong_json(file, 1, numbers[long])):
                with storm.trial((file.name, what)):
                    workdir = shutil.copytree(whole, tmp_path / f"{record}{number}")
                    (workdir / file.relative_to(whole)).write_bytes(content)
                    before = tree_of(workdir)
                    read = {
                        "tokenizer": lambda w=workdir: data.load_tokenizer(w / "tokenizer"),
                        "manifest": lambda w=workdir: checkpoint_reader.load(w / "checkpoints"),
                    }.get(record, lambda w=workdir: train.train(settings, w))
                    said, code = refusal(read)
                    assert "\n" not in said
                    # Some fields may be otherwise or lack: older runs have no "reserved".
                    harmless = record.endswith(".json") or what == "gone reserved"
                    assert code in (64, 65, 74) or harmless, "taken for good"
                    assert tree_of(workdir) == before
                    shutil.rmtree(workdir)


BUGS = {
    "options are not looked at": lambda p: p.setattr(
        schema.registry, "check_options", lambda what, target, given, *rest: dict(given)
    ),
    "a digest is not looked at": lambda p: p.setattr(manifest.Manifest, "read", read_anything),
    "rows are not looked at": lambda p: p.setattr(
        data.Source, "pairs", lambda self, split: [("a", "b")]
    ),
}


def read_anything(folder: Path) -> manifest.Manifest:
    return manifest.Manifest(2, None, {"params/x": None}, {}, {}, {}, {})


def test_a_reader_that_looks_away_is_found_out(tmp_path: Path, run: tuple[dict, Path]) -> None:
    _, whole = run
    numbers = iter(range(99))

    def check() -> None:
        folder = tmp_path / f"text{next(numbers)}"
        folder.mkdir()
        for name in data.SPLITS:
            (folder / f"{name}.tsv").write_bytes(b"no tab\n")
        with pytest.raises(DataError):
            data.build_source({"name": "folder", "path": str(folder)}, "").pairs("train")
        with pytest.raises(ConfigError):
            settings_of([f"--config={BASES[0]}", "--config.num_steps=nan"])
        copy = shutil.copytree(whole, tmp_path / f"run{next(numbers)}")
        (copy / "checkpoints/2/manifest.json").write_text("{}")
        with pytest.raises(StorageError):
            checkpoint_reader.load(copy / "checkpoints")

    assert_all_caught("bugs of reading", check, BUGS)
