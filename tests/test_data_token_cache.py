"""Text is tokenised once: the cache, its damage, and two processes at once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import data
from data.token_cache import load_tokens, tokenise
from errors import StorageError
from tests.data_cases import Texts, random_source

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture
def source():
    return random_source(num_train=60, num_held_out=7)


@pytest.fixture
def tokenizer(source):
    return data.TOKENIZERS["words"].train(
        text for pair in source.pairs("train") for text in pair[:2]
    )


@pytest.fixture
def calls(tokenizer, monkeypatch):
    """How often targets were encoded, one entry a call."""
    made, encode = [], tokenizer.encode_targets
    monkeypatch.setattr(tokenizer, "encode_targets", lambda t: (made.append(1), encode(t))[1])
    return made


def folders(data_dir):
    return sorted(path for path in (data_dir / "tokens").iterdir() if path.is_dir())


def same(a, b):
    return (a.ids == b.ids).all() and (a.offsets == b.offsets).all()


def test_ids_and_offsets(source, tokenizer, data_dir):
    tokens = load_tokens(source, tokenizer, "validation", data_dir)
    for i, pair in enumerate(source.pairs("validation")):
        for side in (0, 1):
            start, stop = tokens.offsets[2 * i + side : 2 * i + side + 2]
            assert tokens.ids[start:stop].tolist() == tokenizer.encode(pair[side])
            assert tokens.lengths[i, side] == stop - start
    assert tokens.num_examples == 7


def test_text_is_tokenised_once(source, tokenizer, data_dir, calls):
    first = load_tokens(source, tokenizer, "train", data_dir)
    assert len(calls) == 1
    again = load_tokens(source, tokenizer, "train", data_dir)
    assert len(calls) == 1
    assert same(first, again)
    assert not again.ids.flags.writeable  # mapped from the file


def test_another_text_split_or_tokenizer_has_another_place(source, tokenizer, data_dir):
    load_tokens(source, tokenizer, "train", data_dir)
    before = {path: path.read_bytes() for path in folders(data_dir)[0].iterdir()}
    load_tokens(source, tokenizer, "test", data_dir)
    pairs = {split: [pair[:2] for pair in source.pairs(split)] for split in data.SPLITS}
    pairs["train"][3] = ("w1 w2", "w3")
    load_tokens(Texts(**pairs), tokenizer, "train", data_dir)
    other = data.TOKENIZERS["words"].train(["w1 w2 w3"])
    load_tokens(source, other, "train", data_dir)
    assert len(folders(data_dir)) == 4
    assert {path: path.read_bytes() for path in before} == before
    load_tokens(Texts(**pairs), tokenizer, "test", data_dir)  # this split's text is unchanged
    assert len(folders(data_dir)) == 4


def flip(name, at):
    def damage(folder):
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 4
        (folder / name).write_bytes(content)

    return damage


DAMAGE = [
    ("an id", flip("ids.npy", -5)),
    ("the header", flip("ids.npy", 20)),
    ("an offset", flip("offsets.npy", -20)),
    ("cut off", lambda f: (f / "ids.npy").write_bytes((f / "ids.npy").read_bytes()[:-8])),
    ("empty", lambda f: (f / "offsets.npy").write_bytes(b"")),
    ("missing", lambda f: (f / "ids.npy").unlink()),
    ("no meta", lambda f: (f / "meta.json").unlink()),
    ("meta cut off", lambda f: (f / "meta.json").write_text('{"sha256": {')),
    ("meta a list", lambda f: (f / "meta.json").write_text("[]")),
    ("meta without digests", lambda f: (f / "meta.json").write_text("{}")),
    ("meta not UTF-8", lambda f: (f / "meta.json").write_bytes(b"\xff")),
    ("all gone", lambda f: [path.unlink() for path in f.iterdir()]),
]


@pytest.mark.parametrize("damage", [d[1] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_what_is_damaged_is_made_again(source, tokenizer, data_dir, calls, damage):
    whole = tokenise(source, tokenizer, "train")
    load_tokens(source, tokenizer, "train", data_dir)
    (folder,) = folders(data_dir)
    damage(folder)
    assert same(load_tokens(source, tokenizer, "train", data_dir), whole)
    assert len(calls) == 3
    assert same(load_tokens(source, tokenizer, "train", data_dir), whole)
    assert len(calls) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["ids.npy", "meta.json", "offsets.npy"]


def test_a_large_vocabulary_needs_wider_ids(source, tokenizer, monkeypatch):
    assert tokenise(source, tokenizer, "test").ids.dtype == np.uint16
    monkeypatch.setattr(tokenizer, "encode_batch", lambda texts: [[70_000] for _ in texts])
    monkeypatch.setattr(tokenizer, "vocab_size", 70_001)
    assert tokenise(source, tokenizer, "test").ids[0] == 70_000


def test_a_place_that_cannot_be_written_is_refused_in_one_line(source, tokenizer, tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(StorageError) as caught:
        load_tokens(source, tokenizer, "train", place)
    assert str(caught.value).startswith("Cannot ")
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert place.read_text() == "mine"


def test_a_failure_leaves_nothing_half_written(source, tokenizer, data_dir, monkeypatch):
    monkeypatch.setattr(np, "save", lambda path, array: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="full"):
        load_tokens(source, tokenizer, "train", data_dir)
    assert folders(data_dir) == []
    monkeypatch.undo()
    load_tokens(source, tokenizer, "train", data_dir)
    assert len(folders(data_dir)) == 1


PROGRAM = """
import json, sys
import data
from data.tokenizers import Words
from tests.data_cases import random_source

num_fits = 0
fit = Words.fit
def counted(self, texts):
    global num_fits
    num_fits += 1
    fit(self, texts)
Words.fit = counted
source = random_source(num_train=2000)
tokenizer = data.build_tokenizer({"name": "words"}, source, sys.argv[1])
batches = data.PairBatches(source, tokenizer, sys.argv[1], seed=0)
ids = batches.batch("train", 3)["source"]
print(json.dumps([num_fits, tokenizer.fingerprint(), int(ids.sum())]))
"""


def test_processes_that_start_together_do_the_work_once(data_dir):
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(data_dir)]
    started = [
        subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    results = [json.loads(output) for output in outputs]
    assert sorted(result[0] for result in results) == [0, 0, 1]
    assert len({tuple(result[1:]) for result in results}) == 1
    assert len(folders(data_dir)) == 1
    left = [path.name for path in data_dir.rglob("*.tmp")]
    assert left == []
