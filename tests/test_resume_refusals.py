"""A run goes on with the data and the config with which it was started, and with no others."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from errors import ConfigError, Preempted, SeqlabError
from tests import trainer_cases
from tests.trainer_cases import SharedTrainer, journal, tiny, tree_of


@pytest.fixture(scope="module")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer_cases.make_data_dir(tmp_path_factory.mktemp("shared") / "data")


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer_cases.share_programs(monkeypatch)


def write_folder(folder: Path) -> Path:
    """A data set of one's own: a sentence of numbers, and the same backwards."""
    folder.mkdir()
    for split, count in (("train", 48), ("validation", 8), ("test", 8)):
        lines = []
        for i in range(count):
            words = [f"w{(i * 7 + j * j) % 11}" for j in range(2 + i % 3)]
            lines.append(f"{' '.join(words)}\t{' '.join(reversed(words))}\n")
        (folder / f"{split}.tsv").write_text("".join(lines))
    return folder


def edit(split: str, change: Callable[[list[str]], Any]) -> Callable[[Path], None]:
    """Changes the lines of a split in place."""

    def apply(folder: Path) -> None:
        lines = (folder / f"{split}.tsv").read_text().splitlines(keepends=True)
        before = lines[:]
        change(lines)
        assert lines != before
        (folder / f"{split}.tsv").write_text("".join(lines))

    return apply


def swap(lines: list[str], a: int, b: int) -> None:
    lines[a], lines[b] = lines[b], lines[a]


def replace(row: int, old: str, new: str) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[row] = lines[row].replace(old, new, 1)

    return change


def swap_columns(lines: list[str]) -> None:
    lines[:] = ["\t".join(reversed(line.rstrip("\n").split("\t"))) + "\n" for line in lines]


CHANGED_DATA = [
    edit("train", replace(20, "w", "W")),
    edit("train", replace(47, "\t", "\tw0 ")),
    edit("train", replace(0, "\t", " w99\t")),
    edit("train", lambda lines: lines.pop(0)),
    edit("train", lambda lines: lines.pop()),
    edit("train", lambda lines: lines.append(lines[0])),
    edit("train", lambda lines: lines.insert(9, lines[9])),
    edit("train", lambda lines: swap(lines, 3, 4)),
    edit("train", lambda lines: swap(lines, 0, 47)),
    edit("train", list.reverse),
    edit("train", swap_columns),
    edit("validation", replace(2, "\t", " w1\t")),
    edit("validation", lambda lines: lines.pop()),
    edit("test", replace(5, "\t", "\tw3 ")),
    edit("test", lambda lines: swap(lines, 1, 2)),
]
CHANGED_FIELDS = {
    "seed": 1,
    "task.tokens_per_batch": 96,
    "task.max_length": 5,
    "task.num_buckets": 2,
    "task.label_smoothing": 0.2,
    "task.tokenizer.name": "characters",
    "task.source.source_language": "it",
    "model.d_model": 16,
    "model.num_heads": 4,
    "model.d_ff": 32,
    "model.num_encoder_layers": 2,
    "model.num_decoder_layers": 2,
    "model.dropout_rate": 0.1,
    "model.layer_norm": "post",
    "model.tie_embeddings": False,
    "model.attention": "dot_product",
    "model.dtype": "bfloat16",
    "model.remat": True,
    "model.scan_layers": True,
    "optimizer.clip_norm": 0.25,
    "optimizer.clip.name": "adaptive",
    "optimizer.weight_decay": 0.5,
    "accumulate": 2,
    "ema_decay": 0.5,
    "optimizer.name": "sgd",
    "parallel.canonical_shards": 8,
}
HARMLESS_FIELDS = {
    "num_steps": 9,
    "optimizer.learning_rate": 0.003,
    "optimizer.schedule.final_rate": 0.1,
    "optimizer.schedule.warmup_steps": 2,
    "task.num_beams": 3,
    "task.length_penalty": 0.5,
    "average_checkpoints": 2,
    "early_stopping_patience": 5,
    "max_skipped_steps": 3,
    "log_every": 2,
    "diagnose_every": 3,
    "eval_every": 2,
    "save_every": 2,
    "keep_checkpoints": 7,
    "final_split": "validation",
    "parallel.num_devices": 2,
    "parallel.strategy": "mesh",
    "parallel.mesh": (1, 1, 1),
}


def compress(folder: Path) -> None:
    text = (folder / "train.tsv").read_bytes()
    (folder / "train.tsv.gz").write_bytes(gzip.compress(text))
    (folder / "train.tsv").unlink()


HARMLESS_DATA = [
    lambda folder: (folder / "train.tsv").touch(),
    compress,
    edit("train", lambda lines: lines.append(lines.pop().rstrip("\n"))),
    edit("test", lambda lines: lines.append(lines.pop().replace("\t", " \t"))),
]


def of_folder(data_dir: Path, folder: Path, num_steps: int = 6) -> dict:
    """The config of a run on a folder of one's own."""
    settings = tiny(data_dir, num_steps=num_steps, eval_every=3)
    settings["task"]["source"] = {
        "name": "folder",
        "path": str(folder),
        "source_language": "",
        "target_language": "",
    }
    return settings


def changed(settings: dict, field: str, value: Any) -> dict:
    """A copy of a config with another value at a dotted path."""
    settings = json.loads(json.dumps(settings))
    *parents, last = field.split(".")
    block = settings
    for name in parents:
        block = block[name]
    block[last] = value
    return settings


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> tuple[Path, dict]:
    """A run on a folder that stands at step 3 of 6, and its config."""
    place = tmp_path_factory.mktemp("unfinished")
    settings = of_folder(shared_data, write_folder(place / "text"))
    with pytest.MonkeyPatch.context() as patch:
        trainer_cases.share_programs(patch)
        real = SharedTrainer.validate

        def interrupted(self: SharedTrainer, *args: Any) -> dict:
            self.stop.request("the test")
            return real(self, *args)

        patch.setattr(SharedTrainer, "validate", interrupted)
        with pytest.raises(Preempted):
            train.train(settings, place / "run")
    assert (place / "run/checkpoints/3/manifest.json").exists()
    return place, settings


def test_changed_fields_are_refused_by_name(unfinished: tuple[Path, dict]) -> None:
    place, settings = unfinished
    before = tree_of(place / "run")
    for field, value in CHANGED_FIELDS.items():
        with pytest.raises(ConfigError, match=f"config.{field} is ") as caught:
            train.train(changed(settings, field, value), place / "run")
        assert "\n" not in str(caught.value)
        assert tree_of(place / "run") == before, field
    print(f"{len(CHANGED_FIELDS)} fields")
    assert len(CHANGED_FIELDS) + len(CHANGED_DATA) >= 40


def test_changed_data_are_refused_and_the_run_stays_as_it_was(
    tmp_path: Path, unfinished: tuple[Path, dict]
) -> None:
    """The tokenizer of the run is not overwritten by one of the changed text, for instance."""
    place, settings = unfinished
    before = tree_of(place / "run")
    shutil.copytree(place / "text", tmp_path / "kept")
    for number, change in enumerate(CHANGED_DATA):
        change(place / "text")
        try:
            with pytest.raises(ConfigError, match=r"Cannot resume .*: (data|tokenizer) ") as caught:
                train.train(settings, place / "run")
            assert "\n" not in str(caught.value)
            assert tree_of(place / "run") == before, number
        finally:
            shutil.copytree(tmp_path / "kept", place / "text", dirs_exist_ok=True)
    print(f"{len(CHANGED_DATA)} changed data sets")


def test_harmless_changes_are_accepted(
    tmp_path: Path, unfinished: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, settings = unfinished

    def accepted(trainer: Any, saver: Any, metrics: Any, start: int) -> int:
        assert start == 3
        raise Preempted("accepted")

    monkeypatch.setattr(train, "fit", accepted)
    cases: list[tuple] = [(changed(settings, *item), item) for item in HARMLESS_FIELDS.items()]
    cases += [(settings, change) for change in HARMLESS_DATA]
    shutil.copytree(place / "text", tmp_path / "kept")
    for number, (config, change) in enumerate(cases):
        run = shutil.copytree(place / "run", tmp_path / str(number))
        if callable(change):
            change(place / "text")
        try:
            with pytest.raises(Preempted, match="accepted"):
                train.train(config, run)
        finally:
            shutil.rmtree(place / "text")
            shutil.copytree(tmp_path / "kept", place / "text")
        recorded = [line["field"] for line in journal(run, "config_change")]
        runtime = callable(change) or change[0].split(".")[0] in ("parallel", "log_every")
        assert recorded == ([] if runtime else [f"config.{change[0]}"])
    print(f"{len(cases)} harmless changes")
    assert len(cases) >= 20


def test_a_refusal_leaves_a_new_directory_unmade(tmp_path: Path, shared_data: Path) -> None:
    settings = tiny(shared_data)
    for field, value in {"parallel.num_devices": 999, "model.num_heads": 3}.items():
        with pytest.raises(SeqlabError):
            train.train(changed(settings, field, value), tmp_path / "new")
        assert not (tmp_path / "new").exists()
