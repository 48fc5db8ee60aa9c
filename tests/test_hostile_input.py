"""Pickles, archives and markup: nothing is run, written outside, or left unescaped."""

import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import data
from data.tensor_files import PICKLES, read_tensors
from errors import SeqlabError
from experiments.comparison import markup
from tests.attention_cases import HOSTILE
from tests.checkpoint_cases import restore, save
from tests.storms import Storm, assert_all_caught
from tests.trainer_cases import tree_of
from training import checkpoint_reader, config_files
from training.metrics import read_metrics
from training.run_directory import RunDirectory

LEAVING = ("../evil.txt", "a/../../evil.txt", "/tmp/../tmp/evil.txt", "..\\evil.txt", "..")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.mark),))


def pickles(mark: Path) -> Iterator[bytes]:
    """Programs in the forms in which they travel."""
    evil = Evil(mark)
    for protocol in range(6):
        yield pickle.dumps({"weights": evil}, protocol)
    array = np.empty(1, object)
    array[0] = evil
    for write in (np.save, np.savez):
        stream = io.BytesIO()
        write(stream, array, allow_pickle=True)
        yield stream.getvalue()


def archives() -> Iterator[bytes]:
    """Archives with names that lead out of their folder."""
    for name in LEAVING:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(name, b"harm")
        yield stream.getvalue()
        for pack in (lambda raw: raw, gzip.compress, lzma.compress):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as archive:
                entry = tarfile.TarInfo(name)
                entry.size = 4
                archive.addfile(entry, io.BytesIO(b"harm"))
            yield pack(stream.getvalue())


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


def read_pairs(folder: Path) -> None:
    for split in data.SPLITS:
        data.build_source({"name": "folder", "path": str(folder)}, "").pairs(split)


def readers(content: bytes) -> dict[str, Callable[[Path], object]]:
    """Everything that reads a file which somebody else may have made, given that file."""
    tables = {
        f"train.tsv{ending}": lambda f, e=ending: read_pairs(put(f, f"train.tsv{e}", content))
        for ending in ("", ".gz", ".xz")
    }
    weights = {
        f"weights{ending}": lambda f, e=ending: read_tensors(put(f, f"pytorch_model{e}", content))
        for ending in PICKLES
    }
    return {
        **tables,
        **weights,
        "model.safetensors": lambda f: read_tensors(put(f, "model.safetensors", content)),
        "tokenizer.json": lambda f: data.load_tokenizer(put(f, "tokenizer.json", content)),
        "config.json": lambda f: config_files.load_config(
            str(put(f, "config.json", content) / "config.json")
        ),
        "manifest.json": lambda f: checkpoint_reader.load(put(f, "1/manifest.json", content)),
        "metrics.jsonl": lambda f: read_metrics(put(f, "metrics.jsonl", content + b"\n")),
        "result.json": lambda f: RunDirectory(put(f, "result.json", content)).result(),
    }


def refuses(read: Callable[[Path], object], folder: Path, mark: Path) -> str:
    """What is said: one line, and the world outside the folder as it was."""
    folder.mkdir(parents=True)
    outside = {path for path in folder.parent.parent.rglob("*") if folder not in path.parents}
    with pytest.raises(SeqlabError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert not mark.exists(), "a program was run"
    assert outside == {
        path for path in folder.parent.parent.rglob("*") if folder not in path.parents
    }
    return str(caught.value)


@pytest.mark.parametrize("kind", ["pickles", pytest.param("archives", marks=pytest.mark.heavy)])
def test_files_that_could_do_harm(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "mark"
    contents = list(pickles(mark) if kind == "pickles" else archives())
    with Storm(kind, 100) as storm:
        for number, content in enumerate(contents):
            for name, read in readers(content).items():
                with storm.trial((number, name)):
                    said = refuses(read, tmp_path / "all" / f"{number}{name}", mark)
                    assert "can run programs" in said or not name.startswith("weights")


def test_names_that_lead_out_of_a_folder(tmp_path: Path) -> None:
    """Of shards in an index of weights, and of files in a manifest whose digest is right."""
    with Storm("names that lead outside", 2 * len(LEAVING)) as storm:
        for number, name in enumerate(LEAVING):
            with storm.trial(("index", name)):
                index = json.dumps({"weight_map": {"w": name}}).encode()
                said = refuses(
                    lambda f, index=index: read_tensors(
                        put(f, "model.safetensors.index.json", index)
                    ),
                    tmp_path / "index" / str(number),
                    tmp_path / "mark",
                )
                assert "is no name of a file" in said or "/" not in name
            with storm.trial(("manifest", name)):
                directory = tmp_path / "saved" / str(number)
                save(directory, 1, 2)
                manifest = checkpoint_reader.Manifest.read(directory / "2")
                files = {**manifest.files, name: "0" * 64}
                (directory / "2" / "manifest.json").unlink()
                type(manifest)(**{**vars(manifest), "files": files}).write(directory / "2")
                before = tree_of(tmp_path / "index")
                found = restore(directory)
                assert found is not None
                assert found[0] == 1
                assert tree_of(tmp_path / "index") == before


def test_markup_is_escaped() -> None:
    """What stands in a page of a comparison: 'attention pages' have their own tests."""
    with Storm("HTML payloads", len(HOSTILE)) as storm:
        for text in HOSTILE:
            with storm.trial(text):
                assert not set(markup.escape(text)) & set("<>\"'")


BUGS = {
    "pickles are opened": lambda p: p.setattr(
        np, "load", lambda *args, load=np.load, **kwargs: load(*args, **kwargs, allow_pickle=True)
    ),
    "JSON is tried as a pickle": lambda p: p.setattr(json, "loads", pickle.loads),
}


def test_a_reader_that_unpickles_is_found_out(tmp_path: Path) -> None:
    number = iter(range(99))

    def check() -> None:
        mark = tmp_path / f"mark{next(number)}"
        [content, *_] = pickles(mark)
        folder = tmp_path / "all" / mark.name
        refuses(readers(content)["result.json"], folder, mark)
        stream = list(pickles(mark))[-2]
        place = put(folder, "ids.npy", stream) / "ids.npy"
        with pytest.raises(ValueError, match=r"allow_pickle|Array can't be memory-mapped"):
            np.load(place)

    assert_all_caught("bugs of opening", check, BUGS)
