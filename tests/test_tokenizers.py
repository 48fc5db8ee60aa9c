"""Tokenizers: round trips, what is unknown, files and their damage, fingerprints."""

import unicodedata

import numpy as np
import pytest

import data
from data import BOS, EOS, PAD, UNK
from data.tokenizers import UNKNOWN_TEXT
from errors import DataError
from tests.tokenizer_cases import NAMES, ODD_TEXTS, OPTIONS, SUBWORDS, TEXTS


@pytest.fixture(scope="module", params=NAMES)
def tokenizer(request):
    return data.TOKENIZERS[request.param].train(TEXTS, **OPTIONS[request.param])


def expected(name: str, text: str) -> str:
    """The text that encoding and decoding should give back."""
    if name in SUBWORDS:
        return " ".join(unicodedata.normalize("NFKC", text).split())
    return " ".join(text.split()) if name == "words" else text


def test_every_kind_is_tested():
    read = {"saved", "hugging_face"}  # from files; tests/test_published_tokenizers.py
    assert sorted(data.TOKENIZERS.keys() - read) == NAMES


def test_round_trip(tokenizer):
    encoded = tokenizer.encode_batch(TEXTS)
    for text, ids in zip(TEXTS, encoded, strict=True):
        assert tokenizer.decode(ids) == expected(tokenizer.name, text)
        assert list(ids) == list(tokenizer.encode(text))
        assert not {PAD, UNK, BOS, EOS} & set(ids)
        assert max(ids) < tokenizer.vocab_size
    print(f"{len(TEXTS)} texts")


@pytest.mark.parametrize("name", ["bytes", *SUBWORDS])
def test_text_that_training_did_not_have_is_spelled_in_bytes(name):
    tokenizer = data.TOKENIZERS[name].train(["only a few letters"] * 3, **OPTIONS[name])
    random = np.random.default_rng(0)
    texts = list(ODD_TEXTS)
    for _ in range(200):
        points = random.integers(0x21, 0x2FA1F, size=random.integers(1, 12))
        text = "".join(chr(p) for p in points if unicodedata.category(chr(p))[0] in "LNPSM")
        texts.append(f"x{text}")
    num_same = 0
    for text in texts:
        ids = tokenizer.encode(text)
        assert UNK not in ids
        if name == "bytes":
            assert tokenizer.decode(ids) == text
        num_same += tokenizer.decode(ids) == expected(name, text)
    assert num_same > 0.95 * len(texts)  # SentencePiece's Unicode is older than Python's
    print(f"{len(texts)} texts, {num_same} as Python normalises them")


@pytest.mark.parametrize(
    ("name", "text", "unknown_at", "decoded"),
    [
        ("words", "the dog sat", [1], f"the {UNKNOWN_TEXT} sat"),
        ("characters", "cat ж", [4], f"cat {UNKNOWN_TEXT}"),
    ],
)
def test_unknown_pieces_are_unk(name, text, unknown_at, decoded):
    tokenizer = data.TOKENIZERS[name].train(["the cat sat on a mat"], **OPTIONS[name])
    ids = tokenizer.encode(text)
    assert [i for i, token in enumerate(ids) if token == UNK] == unknown_at
    assert tokenizer.decode(ids) == decoded


def test_decoding_drops_padding_and_marks(tokenizer):
    ids = list(tokenizer.encode("the cat sat"))
    marked = [BOS, *ids[:2], PAD, *ids[2:], EOS, PAD, PAD]
    assert tokenizer.decode(np.array(marked)) == "the cat sat"
    assert tokenizer.decode([]) == ""


def test_decoding_refuses_ids_outside_the_vocabulary(tokenizer):
    for bad in (-1, tokenizer.vocab_size, 10**6):
        with pytest.raises(
            DataError, match=f"^Token id {bad} is outside .* {tokenizer.vocab_size}"
        ):
            tokenizer.decode([5, bad])


def test_bytes_that_are_not_utf8_decode_to_a_mark():
    tokenizer = data.TOKENIZERS["bytes"]()
    assert tokenizer.decode([0xFF + 4, ord("a") + 4]) == "\ufffda"


def test_the_most_frequent_words_are_kept_and_ties_are_settled():
    texts = ["b b b a d a c"]
    tokenizer = data.TOKENIZERS["words"].train(texts, vocab_size=7)
    assert tokenizer.pieces() == ["b", "a", "c"]
    assert tokenizer.vocab_size == 7


def test_a_small_corpus_has_fewer_pieces_than_asked_for():
    for name in ("bpe", "unigram", "words", "characters"):
        tokenizer = data.TOKENIZERS[name].train(["ab ba"] * 4, vocab_size=4000)
        assert 4 < tokenizer.vocab_size < 300
        assert tokenizer.decode(tokenizer.encode("ab ba")) == "ab ba"


def test_the_fingerprint_tells_tokenizers_apart_and_only_them():
    prints = {}
    for name in NAMES:
        kind, options = data.TOKENIZERS[name], OPTIONS[name]
        same = [kind.train(texts, **options).fingerprint() for texts in (TEXTS, tuple(TEXTS))]
        assert same[0] == same[1]
        prints[name] = same[0]
        if name != "bytes":
            prints[name, "text"] = kind.train(TEXTS[10:], **options).fingerprint()
            prints[name, "size"] = kind.train(TEXTS, vocab_size=380 if name in SUBWORDS else 60)
            prints[name, "size"] = prints[name, "size"].fingerprint()
    assert len(set(prints.values())) == len(prints)
    print(f"{len(prints)} different fingerprints")


def test_no_text_to_learn_from_is_refused():
    for name in NAMES:
        if name != "bytes":
            with pytest.raises(DataError, match=f"A {name} tokenizer needs text to learn from"):
                data.TOKENIZERS[name].train([" "] if name in (*SUBWORDS, "words") else [])


def test_reserved_ids_stand_above_all_others_and_for_no_text(tokenizer):
    size = tokenizer.vocab_size
    wider = tokenizer.reserve(("[MASK]", "[CLS]")).reserve(("[CLS]", "<extra_id_0>"))
    assert dict(wider.reserved) == {"[MASK]": size, "[CLS]": size + 1, "<extra_id_0>": size + 2}
    assert (wider.vocab_size, tokenizer.vocab_size) == (size + 3, size)
    assert not tokenizer.reserved
    texts = [*TEXTS, "[MASK]", "a [CLS] <extra_id_0>"]
    assert wider.encode_batch(texts) == tokenizer.encode_batch(texts)
    ids = [size + 1, *tokenizer.encode("the cat"), size, size + 2, *tokenizer.encode("sat")]
    assert wider.decode([BOS, *ids, EOS]) == "[CLS] the cat [MASK] <extra_id_0> sat"
    assert wider.text_ids().tolist() == list(range(4, size))
    prints = {t.fingerprint() for t in (tokenizer, wider, tokenizer.reserve(("[CLS]", "[MASK]")))}
    assert len(prints) == 3
    assert tokenizer.reserve(()).fingerprint() == tokenizer.fingerprint()


def test_words_begin_where_spaces_are(tokenizer):
    wider = tokenizer.reserve(("[MASK]",))
    starts = wider.word_starts()
    assert starts[[PAD, UNK, BOS, EOS, tokenizer.vocab_size]].all()
    for text in ("the cat number 7 sat on the mat", "naïve mat"):
        ids = np.array(tokenizer.encode(text))
        cuts = [at for at in range(1, len(ids)) if starts[ids[at]]]
        words = [tokenizer.decode(part).strip() for part in np.split(ids, cuts)]
        assert words == text.split()
