"""Published tokenizers under our special ids: what they cut, keep, and refuse."""

import itertools
import json
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import sentencepiece
from published_folders import NAMES, config_of, write_tokenizer
from tokenizer_cases import ODD_TEXTS

from data import BOS, CLS, EOS, MASK, PAD, SEP, UNK, Example, load_tokenizer
from data.hugging_face import HuggingFace, is_published
from data.token_cache import tokenise
from errors import DataError

SENTENCES = ("the cat number 7 sat on the mat 49", "The Cat, the mat.", "xyzzy 3")
KINDS = [*((name, "vocabulary") for name in NAMES), ("gpt2", "json"), ("bert", "json")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{(name, kind): folder} with the files of a tokenizer and config.json."""
    root, found = tmp_path_factory.mktemp("published"), {}
    for name, kind in KINDS:
        folder = root / f"{name}-{kind}"
        config = config_of(name, write_tokenizer(folder, name, kind))
        (folder / "config.json").write_text(json.dumps(config))
        found[name, kind] = folder, HuggingFace.from_folder(folder, config)
    return found


all_kinds = pytest.mark.parametrize("which", KINDS, ids="-".join)


@all_kinds
def test_ids_are_theirs_in_another_order_and_text_comes_back(folders, which):
    _, tokenizer = folders[which]
    source = tokenizer.source
    assert tuple(tokenizer.theirs[:4]) == source.special
    kept = np.delete(tokenizer.theirs, list(tokenizer.copies))
    assert sorted(kept) == list(range(source.num_ids))
    cut = tokenizer._cutter.encode_batch(SENTENCES)
    for ids, their in zip(tokenizer.encode_batch(SENTENCES), cut, strict=True):
        assert tokenizer.theirs[ids].tolist() == [*source.prefix, *their]
        assert not {PAD, BOS, *tokenizer.copies} & set(ids)
    sentence = SENTENCES[0]
    assert tokenizer.decode([BOS, *tokenizer.encode(sentence), EOS, PAD]).strip() == sentence
    texts = tokenizer.text_ids()
    assert not {PAD, UNK, BOS, EOS, *tokenizer.reserved.values()} & set(texts.tolist())
    assert all(tokenizer.pieces()[i] for i in texts)
    starts = tokenizer.word_starts()
    cat = [i for i in tokenizer.encode(" cat cats") if i not in tokenizer.reserved.values()]
    assert starts[cat[0]] or which[0] == "t5"


@all_kinds
def test_what_is_saved_comes_back_and_a_changed_file_is_noticed(folders, which, tmp_path):
    _, tokenizer = folders[which]
    tokenizer.save(tmp_path / "a")
    loaded = load_tokenizer(tmp_path / "a")
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode_batch(ODD_TEXTS) == tokenizer.encode_batch(ODD_TEXTS)
    assert dict(loaded.reserved) == dict(tokenizer.reserved)
    assert loaded.copies == tokenizer.copies
    assert loaded.source == tokenizer.source
    wider = tokenizer.reserve(("[NEW]",))
    wider.save(tmp_path / "b")
    assert load_tokenizer(tmp_path / "b").reserved["[NEW]"] == tokenizer.vocab_size
    for file in (tmp_path / "a" / "theirs").iterdir():
        content = file.read_bytes()
        file.write_bytes(content.replace(b"t", b"u", 1))
        with pytest.raises(DataError, match=f"{file.name}: damaged"):
            load_tokenizer(tmp_path / "a")
        file.unlink()
        with pytest.raises(DataError, match=f"{file.name}: cannot be read"):
            load_tokenizer(tmp_path / "a")
        file.write_bytes(content)
    load_tokenizer(tmp_path / "a")


def test_names_that_tasks_ask_for(folders):
    bert, roberta = (folders[name, "vocabulary"][1] for name in ("bert", "roberta"))
    for tokenizer, mask in ((bert, 4), (roberta, 4)):
        assert (tokenizer.reserved[CLS], tokenizer.reserved[SEP]) == (BOS, EOS)
        assert tokenizer.theirs[tokenizer.reserved[MASK]] == mask
        assert not tokenizer.copies
    t5 = folders["t5", "vocabulary"][1]
    assert t5.theirs[t5.reserved["<extra_id_0>"]] == t5.source.num_ids - 1
    sentinel = t5.encode("the <extra_id_1> mat")
    assert t5.theirs[sentinel].tolist().count(t5.source.num_ids - 2) == 1
    assert t5.copies == (BOS,)  # it begins with padding
    gpt2 = folders["gpt2", "json"][1]
    assert gpt2.copies == (PAD, UNK, BOS)  # all are the end of a text
    bart = folders["bart", "vocabulary"][1]
    assert bart.theirs[bart.encode("the cat")[0]] == 0  # its texts begin with <s>
    assert bart.decode(bart.encode("the cat")) == "the cat"
    assert bart.copies == (BOS,)
    folder, marian = folders["marian", "vocabulary"]
    target = sentencepiece.SentencePieceProcessor(model_file=str(folder / "target.spm"))
    for text in SENTENCES:
        (ids,) = marian.encode_targets([text])
        known = [p if p in marian.pieces() else "<unk>" for p in target.encode(text, out_type=str)]
        assert [marian.pieces()[i] for i in ids] == known
    assert marian.encode_targets(SENTENCES) != marian.encode_batch(SENTENCES)
    assert bart.encode_targets(SENTENCES) == bart.encode_batch(SENTENCES)
    assert marian.theirs[marian.encode(">>fra<<the cat")[0]] == marian.source.num_ids - 2


def test_each_side_of_a_pair_is_cut_in_its_own_way(folders):
    marian = folders["marian", "vocabulary"][1]
    pairs = [Example(text, text) for text in SENTENCES]
    tokens = tokenise(SimpleNamespace(pairs=lambda split: pairs), marian, "train")
    sides = [marian.encode_batch(SENTENCES), marian.encode_targets(SENTENCES)]
    expected = [ids for pair in zip(*sides, strict=True) for ids in pair]
    found = [tokens.ids[slice(*edges)].tolist() for edges in itertools.pairwise(tokens.offsets)]
    assert found == expected


@pytest.mark.interop
@all_kinds
def test_ids_are_those_of_transformers(folders, which):
    import transformers

    folder, tokenizer = folders[which]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Marian's recommends a package
        peer = transformers.AutoTokenizer.from_pretrained(folder)
    prefix = len(tokenizer.source.prefix)
    texts = (*SENTENCES, *ODD_TEXTS[:4], "the  cat")
    for text in texts:
        expected = peer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.theirs[tokenizer.encode(text)].tolist()[prefix:] == expected, text
        target = peer(text_target=text, add_special_tokens=False)["input_ids"]
        (found,) = tokenizer.encode_targets([text])
        assert tokenizer.theirs[found].tolist()[prefix:] == target, text


def damaged(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(folder, config)
    return HuggingFace.from_folder(folder, config)


DAMAGES = [
    (("gpt2", "json"), lambda f, c: (f / "tokenizer.json").unlink(), "there is no tokenizer"),
    (("gpt2", "json"), lambda f, c: cut(f / "tokenizer.json"), "tokenizer.json: damaged"),
    (("gpt2", "vocabulary"), lambda f, c: cut(f / "vocab.json"), "vocab.json: damaged"),
    (("gpt2", "vocabulary"), lambda f, c: (f / "merges.txt").unlink(), "there is no tokenizer"),
    (("gpt2", "vocabulary"), lambda f, c: c.update(vocab_size=9), "a vocab_size of 9"),
    (("t5", "vocabulary"), lambda f, c: cut(f / "spiece.model"), "spiece.model: damaged"),
    (("marian", "vocabulary"), lambda f, c: cut(f / "source.spm"), "source.spm: damaged"),
    (("bart", "vocabulary"), lambda f, c: c.update(decoder_start_token_id=999), "a special id"),
]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(("which", "change", "sentence"), DAMAGES)
def test_damaged_files_are_named(folders, tmp_path, which, change, sentence):
    folder = shutil.copytree(folders[which][0], tmp_path / "copy")
    with pytest.raises(DataError, match=sentence) as caught:
        damaged(folder, change)
    assert "\n" not in str(caught.value)


def test_a_run_is_a_run_whatever_else_lies_in_its_folder(tmp_path):
    run = tmp_path / "lm.pt"
    run.mkdir()
    (run / "config.json").write_text('{"task": {}, "model": {}}')
    for name in ("notes.pkl", "model.safetensors"):
        (run / name).write_bytes(b"")
    assert not is_published(run)
    assert not is_published(tmp_path)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "model.bin").write_bytes(b"")
    assert is_published(tmp_path / "torch")
    assert is_published(tmp_path / "torch" / "model.bin")
    (run / "config.json").write_text('{"model_type": "gpt2"}')
    assert is_published(run)
