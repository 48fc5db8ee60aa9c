"""Tokenizers in the files that come with published weights, with the ids that stand there.

Three kinds of files: tokenizer.json for the library `tokenizers` (or the vocabulary files that
were before it, of which one is made), spiece.model of T5, and the pair of SentencePiece models of
Marian, whose ids stand in a third file.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import sentencepiece
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from errors import DataError

Files = Mapping[str, bytes]
NUM_SENTINELS = 100
SENTINEL = re.compile(r"(<extra_id_\d+>)")
LANGUAGE = re.compile(r">>[^<]*<<")


class Cutter:
    """Cuts text into tokens with the ids of its files.

    Attributes:
        needed: names of its files.
        files: their content.
        ids: of all tokens by their text.
        word: begins a token that begins a word; or, after "not ", one that does not.
    """

    needed: ClassVar[tuple[str, ...]]
    ids: dict[str, int]
    word = ""

    def __init__(self, files: Files) -> None:
        self.files = {name: files[name] for name in self.needed}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without any that stand for no text."""
        raise NotImplementedError

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """The same of texts that a translator writes."""
        return self.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that are all known."""
        raise NotImplementedError

    def begins_word(self, token: str) -> bool:
        """Whether a token begins a word."""
        if self.word.startswith("not "):
            return not token.startswith(self.word.removeprefix("not "))
        return token.startswith(self.word)


class Json(Cutter):
    """The file of the library `tokenizers`."""

    needed = ("tokenizer.json",)

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._cutter = tokenizers.Tokenizer.from_str(self.files["tokenizer.json"].decode())
        self._cutter.no_padding()
        self._cutter.no_truncation()
        self.ids = self._cutter.get_vocab()
        tokens = self.ids.keys()
        spaced = [mark for mark in ("\u0120", "\u2581") if any(t.startswith(mark) for t in tokens)]
        self.word = spaced[0] if spaced else "not ##"

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._cutter.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        return self._cutter.decode(list(ids), skip_special_tokens=False)


class Spiece(Cutter):
    """T5's SentencePiece model, with sentinels above its pieces, the first one highest."""

    needed = ("spiece.model",)
    word = "\u2581"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._cutter = _load(self.files["spiece.model"])
        size = self._cutter.vocab_size()
        self.ids = {self._cutter.id_to_piece(i): i for i in range(size)}
        last = size + NUM_SENTINELS - 1
        self._sentinels = {f"<extra_id_{i}>": last - i for i in range(NUM_SENTINELS)}
        self.ids |= self._sentinels
        self._names = {i: name for name, i in self._sentinels.items()}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            [i for part in SENTINEL.split(text) if part for i in self._part(part)] for text in texts
        ]

    def _part(self, part: str) -> list[int]:
        return [self._sentinels[part]] if part in self._sentinels else self._cutter.encode(part)

    def decode(self, ids: Sequence[int]) -> str:
        pieces = [self._names.get(i) or self._cutter.id_to_piece(i) for i in ids]
        return self._cutter.decode_pieces(pieces)


class Marian(Cutter):
    """A SentencePiece model for the source, one for the target, and one file of ids.

    A source may begin with the language to translate into, ">>fra<<". Ids are read as targets.
    """

    needed = ("source.spm", "target.spm", "vocab.json")
    word = "\u2581"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self.ids = json.loads(self.files["vocab.json"])
        self._tokens = {i: token for token, i in self.ids.items()}
        self._source = _load(self.files["source.spm"])
        self._target = _load(self.files["target.spm"])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._cut(self._source, text) for text in texts]

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._cut(self._target, text) for text in texts]

    def _cut(self, cutter: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
        language = LANGUAGE.match(text)
        pieces = cutter.encode(text[language.end() :] if language else text, out_type=str)
        pieces = [language[0], *pieces] if language else pieces
        return [self.ids.get(piece, self.ids["<unk>"]) for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        text = self._target.decode_pieces([self._tokens[i] for i in ids])
        return text.replace("\u2581", " ")  # of pieces that only sources have


def _load(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


KINDS: tuple[type[Cutter], ...] = (Json, Spiece, Marian)


def cutter_of(files: Files) -> Cutter:
    """The tokenizer of some files that are whole; raises KeyError."""
    return next(kind for kind in KINDS if set(kind.needed) <= set(files))(files)


# ------------------------------------------------------------------- reading a folder


def read_cutter(folder: Path, model_type: str) -> Cutter:
    """The tokenizer in a folder of published weights.

    Raises:
        DataError: there is none, or a file of it is damaged.
    """
    for names, read in _READERS:
        if all((folder / name).is_file() for name in names):
            paths = {name: folder / name for name in names}
            try:
                return read({name: path.read_bytes() for name, path in paths.items()}, model_type)
            except OSError as error:
                raise DataError(f"{folder}: cannot be read: {error.strerror or error}.") from error
            except Exception as error:  # whatever the libraries make of wrong bytes
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise DataError(f"{folder / names[0]}: damaged ({reason}).") from error
    known = "; ".join(" and ".join(names) for names, _ in _READERS)
    raise DataError(f"{folder}: there is no tokenizer. One of these is needed: {known}.")


def _as_they_are(files: Files, model_type: str) -> Cutter:
    return cutter_of(files)


def _byte_pairs(files: Files, model_type: str) -> Cutter:
    """Byte-level BPE; or GPT-1's, of lower-cased words."""
    vocabulary, merges = files.values()
    ids = json.loads(vocabulary)
    lines = [line for line in merges.decode().split("\n") if line and not line.startswith("#ver")]
    pairs = [(left, right) for left, right in (line.split(" ") for line in lines)]
    if model_type == "openai-gpt":
        options: dict[str, Any] = {"unk_token": "<unk>", "end_of_word_suffix": "</w>"}
        cutter = tokenizers.Tokenizer(tokenizers.models.BPE(ids, pairs, **options))
        cutter.normalizer = normalizers.BertNormalizer(lowercase=True)
        cutter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        cutter.decoder = decoders.BPEDecoder(suffix="</w>")
        return _json(cutter, ())
    cutter = tokenizers.Tokenizer(tokenizers.models.BPE(ids, pairs))
    cutter.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cutter.decoder = decoders.ByteLevel()
    return _json(cutter, ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"))


def _word_pieces(files: Files, model_type: str) -> Cutter:
    """WordPiece, of lower-cased text unless tokenizer_config.json says otherwise."""
    ids = {token: i for i, token in enumerate(files["vocab.txt"].decode().splitlines())}
    options = json.loads(files.get("tokenizer_config.json", b"{}"))
    cutter = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    cutter.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    cutter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cutter.decoder = decoders.WordPiece(prefix="##")
    return _json(cutter, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))


def _json(cutter: tokenizers.Tokenizer, special: Sequence[str]) -> Cutter:
    """A tokenizer with those of the special tokens that it has."""
    known = cutter.get_vocab()
    cutter.add_special_tokens(
        [
            tokenizers.AddedToken(token, lstrip=token == "<mask>", special=True)
            for token in special
            if token in known
        ]
    )
    return Json({"tokenizer.json": cutter.to_str().encode()})


_READERS: list[tuple[tuple[str, ...], Callable[[Files, str], Cutter]]] = [
    (("tokenizer.json",), _as_they_are),
    (("source.spm", "target.spm", "vocab.json"), _as_they_are),
    (("spiece.model",), _as_they_are),
    (("vocab.json", "merges.txt"), _byte_pairs),
    (("encoder.json", "vocab.bpe"), _byte_pairs),
    (("vocab.txt", "tokenizer_config.json"), _word_pieces),
    (("vocab.txt",), _word_pieces),
]
