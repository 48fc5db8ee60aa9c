"""Tokenizers as files: what is kept, damage, training once, bad options."""

import json

import numpy as np
import pytest

import data
from errors import ConfigError, DataError
from tests.data_cases import Texts
from tests.tokenizer_cases import NAMES, OPTIONS, SUBWORDS, TEXTS


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request):
    return data.TOKENIZERS[request.param].train(TEXTS, **OPTIONS[request.param])


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a" / "b")
    loaded = data.load_tokenizer(tmp_path / "a" / "b")
    assert type(loaded) is type(tokenizer)
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    names = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    assert names == {"tokenizer.json"} | ({"sentencepiece.model"} & names)
    assert ("sentencepiece.model" in names) == (tokenizer.name in SUBWORDS)


def test_reserved_ids_are_kept(tokenizer, tmp_path):
    wider = tokenizer.reserve(("[MASK]", "<extra_id_0>"))
    wider.save(tmp_path)
    loaded = data.load_tokenizer(tmp_path)
    assert dict(loaded.reserved) == dict(wider.reserved)
    assert (loaded.vocab_size, loaded.fingerprint()) == (wider.vocab_size, wider.fingerprint())
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<extra_id_0>", "<extra_id_1>", 1))
    with pytest.raises(DataError, match="damaged"):
        data.load_tokenizer(tmp_path)


def load(folder):
    """The tokenizer and "", or None and why it was refused."""
    try:
        return data.load_tokenizer(folder), ""
    except DataError as error:
        return None, str(error)


def test_a_changed_byte_is_noticed_or_changes_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    random = np.random.default_rng(1)
    num_noticed = num_harmless = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for at in random.choice(len(whole), 40, replace=False):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << (at % 8))]) + whole[at + 1 :])
            loaded, complaint = load(tmp_path)
            if complaint:
                assert complaint.startswith(f"{tmp_path}/")
                assert "\n" not in complaint
                num_noticed += 1
            else:
                assert path.suffix == ".json"
                assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
                assert loaded.fingerprint() == tokenizer.fingerprint()
                num_harmless += 1
        path.write_bytes(whole)
    assert num_noticed > 20
    print(f"{num_noticed} noticed, {num_harmless} harmless")


def edit(change):
    """Changes the record of tokenizer.json."""

    def damage(folder):
        path = folder / "tokenizer.json"
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return damage


def swap_pieces(record):
    record["pieces"][0], record["pieces"][1] = record["pieces"][1], record["pieces"][0]


DAMAGE = [
    ("no folder", lambda f: [p.unlink() for p in f.iterdir()], "tokenizer.json: cannot be read"),
    ("cut off", lambda f: (f / "tokenizer.json").write_text('{"format": 1,'), "json: damaged"),
    ("empty", lambda f: (f / "tokenizer.json").write_text(""), "json: damaged"),
    ("not UTF-8", lambda f: (f / "tokenizer.json").write_bytes(b'{"a": "\xff"}'), "json: damaged"),
    ("a list", lambda f: (f / "tokenizer.json").write_text("[1]"), "json: damaged"),
    ("unknown kind", edit(lambda r: r.update(name="wrds")), "Did you mean 'words'"),
    ("other format", edit(lambda r: r.update(format=99)), "format 99, this program reads 1"),
    ("no pieces", edit(lambda r: r.pop("pieces")), "json: damaged"),
    ("pieces of numbers", edit(lambda r: r.update(pieces=[1, 2])), "json: damaged"),
    ("a piece less", edit(lambda r: r["pieces"].pop()), "json: damaged"),
    ("pieces swapped", edit(swap_pieces), "json: damaged"),
    ("no probes", edit(lambda r: r.pop("probes")), "json: damaged"),
    ("other ids", edit(lambda r: r["probes"][0][1].append(5)), "cuts its probe texts otherwise"),
]


@pytest.mark.parametrize(
    ("damage", "sentence"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE]
)
def test_a_damaged_tokenizer_is_refused_in_one_line(damage, sentence, tmp_path):
    data.TOKENIZERS["words"].train(TEXTS).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError) as caught:
        data.load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer.json"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_file_that_is_missing_or_of_another_tokenizer_is_refused(tmp_path):
    for name, vocab_size in (("a", 450), ("b", 460)):
        data.TOKENIZERS["bpe"].train(TEXTS, vocab_size=vocab_size).save(tmp_path / name)
    path = tmp_path / "a" / "sentencepiece.model"
    path.write_bytes((tmp_path / "b" / "sentencepiece.model").read_bytes())
    with pytest.raises(DataError, match=r"a/sentencepiece.model: damaged"):
        data.load_tokenizer(tmp_path / "a")
    path.unlink()
    with pytest.raises(DataError, match=r"a/sentencepiece.model: cannot be read: No such file"):
        data.load_tokenizer(tmp_path / "a")


def source_of(train):
    return Texts(train=train, validation=[("secreto", "hidden")], test=[("arcano", "veiled")])


def test_it_is_trained_on_both_sides_of_the_training_split_only(data_dir):
    source = source_of([("gatto", "cat")])
    tokenizer = data.build_tokenizer({"name": "words"}, source, data_dir)
    assert sorted(tokenizer.pieces()) == ["cat", "gatto"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_trained_once_and_again_when_damaged(name, data_dir, monkeypatch):
    source = source_of([(text, text) for text in TEXTS])
    block = {"name": name, **OPTIONS[name]}
    first = data.build_tokenizer(block, source, data_dir)
    kind = data.TOKENIZERS[name]
    fitted, fit = [], kind.fit
    monkeypatch.setattr(kind, "fit", lambda self, texts: (fitted.append(1), fit(self, texts)))
    again = data.build_tokenizer(block, source, data_dir)
    assert again.fingerprint() == first.fingerprint()
    assert not fitted
    (path,) = (data_dir / "tokenizers").glob("*/tokenizer.json")
    path.write_text(path.read_text()[:-9])
    again = data.build_tokenizer(block, source, data_dir)
    assert again.fingerprint() == first.fingerprint()
    assert len(fitted) == 1
    assert data.load_tokenizer(path.parent).fingerprint() == first.fingerprint()
    other = source_of([(text, "other") for text in TEXTS])
    data.build_tokenizer(block, other, data_dir)
    assert len(fitted) == 2


SIZE = ".vocab_size"
BAD_BLOCKS = [  # the block, the field in it, what else the sentence has
    ({"name": "bpee"}, ".name", "'bpee'. Did you mean 'bpe'? Known: bpe, bytes"),
    ({}, "", "name"),
    ({"name": None}, ".name", "None"),
    ({"name": "bpe", "vocab_size": 0}, SIZE, "at least 5, got 0"),
    ({"name": "words", "vocab_size": 4}, SIZE, "at least 5, got 4"),
    ({"name": "words", "vocab_size": -3}, SIZE, "at least 5, got -3"),
    ({"name": "bpe", "vocab_size": "many"}, SIZE, "whole number"),
    ({"name": "bpe", "vocab_size": 300.5}, SIZE, "got 300.5"),
    ({"name": "bpe", "vocab_size": True}, SIZE, "got True"),
    ({"name": "bpe", "vocab_size": None}, SIZE, "got None"),
    ({"name": "bpe", "vocabsize": 9}, "", "'vocabsize'. Did you mean 'vocab_size'"),
    ({"name": "bytes", "vocab_size": 9}, "", "option of tokenizer 'bytes': 'vocab_size'"),
    ({"name": "bpe", "vocab_size": 100}, SIZE, "100 is too small for bpe on this text"),
    ({"name": "unigram", "vocab_size": 262}, SIZE, "262 is too small for unigram"),
]


@pytest.mark.parametrize(
    ("block", "field", "words"), BAD_BLOCKS, ids=[str(b[0]) for b in BAD_BLOCKS]
)
def test_bad_options_are_refused_in_one_line_and_nothing_is_kept(block, field, words, data_dir):
    source = source_of([(text, text) for text in TEXTS])
    with pytest.raises(ConfigError) as caught:
        data.build_tokenizer(block, source, data_dir)
    assert str(caught.value).startswith(f"config.task.tokenizer{field}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in data_dir.rglob("*") if path.is_file() and path.suffix != ".lock"]
