"""Text to token ids and back: BPE, unigram, words, characters, bytes.

All of them have the same four special ids, and all are files without pickle: `tokenizer.json`,
and for BPE and unigram `sentencepiece.model` beside it. A task that needs more ids that stand
for no text, such as [MASK], reserves them above the others. A tokenizer is known by the digest
of its pieces; a few probe texts are stored with their ids, so that a damaged file or a
library that cuts text in another way is noticed when it is loaded.
"""

import copy
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

import numpy as np

from data.files import storage_errors, write_file
from errors import DataError
from registry import Range

PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
NUM_BYTES = 256
UNKNOWN_TEXT = "\u2047"  # what SentencePiece writes for UNK

FORMAT = 1
FILE_NAME = "tokenizer.json"
PROBES = (
    "In the beginning God created the heavens and the earth.",
    "Perché l'anima mia è così turbata? 1 2 + 34",
    "日本語のテキスト שלום עולם \u0627\u0644\u0639\u0631\u0628\u064a\u0629 🙂 \u00a0 ﬁ",
    "a b c z1 lo nix wolen",
)

VocabSize = Annotated[int, Range(len(SPECIAL) + 1)]


class Tokenizer:
    """Cuts text into pieces, each with an id.

    The constructor takes the options of config.task.tokenizer and gives an untrained
    tokenizer; `fit` trains it. `train` does both.

    Attributes:
        name: its name in TOKENIZERS.
        vocab_size: ids are below it. Before `fit` it is what was asked for; a small
            corpus may have fewer pieces.
        reserved: ids that no text has, by name; see `reserve`.
    """

    name: ClassVar[str]
    vocab_size: int
    reserved: Mapping[str, int] = MappingProxyType({})

    @classmethod
    def train(cls, texts: Iterable[str], **options: Any) -> "Tokenizer":
        """A tokenizer trained on texts."""
        tokenizer = cls(**options)
        tokenizer.fit(texts)
        return tokenizer

    def fit(self, texts: Iterable[str]) -> None:
        """Learns the pieces from texts."""
        raise NotImplementedError

    def reserve(self, names: Iterable[str]) -> Self:
        """The same tokenizer with an id more, above all others, for each name that it lacks."""
        lacking = [name for name in dict.fromkeys(names) if name not in self.reserved]
        ids = range(self.vocab_size, self.vocab_size + len(lacking))
        wider = copy.copy(self)
        wider.reserved = {**self.reserved, **dict(zip(lacking, ids, strict=True))}
        wider.vocab_size += len(lacking)
        return wider

    def text_ids(self) -> np.ndarray:
        """The ids that stand for text, in their order: neither special nor reserved."""
        ids = np.arange(len(SPECIAL), self.vocab_size)
        return np.setdiff1d(ids, list(self.reserved.values()))

    def word_starts(self) -> np.ndarray:
        """(vocab_size,) True for each id that begins a word, and for all that are no text."""
        starts = np.ones(self.vocab_size, bool)
        ids = self.text_ids()
        starts[ids] = [self._begins_word(int(i)) for i in ids]
        return starts

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without BOS and EOS."""
        raise NotImplementedError

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that stand on the side that is written; few tokenizers cut it
        otherwise."""
        return self.encode_batch(texts)

    def encode(self, text: str) -> list[int]:
        """The ids of one text, without BOS and EOS."""
        return self.encode_batch([text])[0]

    def space(self) -> list[int]:
        """The ids between two texts of a row; none where words bring their space."""
        no_text = {UNK, *self.reserved.values()}
        return [i for i in self.encode(" ") if i not in no_text]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. PAD, BOS and EOS vanish; UNK becomes a double question mark, and a
        reserved id its name.

        Raises:
            DataError: an id outside the vocabulary.
        """
        kept = [int(i) for i in ids]
        for i in kept:
            if not 0 <= i < self.vocab_size:
                raise DataError(f"Token id {i} is outside the vocabulary of {self.vocab_size}.")
        names = {i: name for name, i in self.reserved.items()}
        kept = [i for i in kept if i not in (PAD, BOS, EOS)]
        return " ".join(
            " ".join(names[i] for i in run) if is_reserved else self._join(list(run))
            for is_reserved, run in itertools.groupby(kept, names.__contains__)
        )

    def pieces(self) -> list[str]:
        """The text that identifies each id."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A digest of the pieces: two tokenizers with the same one cut text alike."""
        parts = [self.name, self.pieces(), *([dict(self.reserved)] if self.reserved else ())]
        content = json.dumps(parts, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes the files that `load_tokenizer` reads; makes the folder if need be."""
        folder = Path(folder)
        with storage_errors(f"write {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        step = max(1, self.vocab_size // 64)  # a text of the tokenizer's own pieces
        probes = [*PROBES, self.decode(range(len(SPECIAL), self.vocab_size, step))]
        record = {
            "format": FORMAT,
            "name": self.name,
            "vocab_size": self.vocab_size,
            "reserved": list(self.reserved),
            "fingerprint": self.fingerprint(),
            "probes": list(zip(probes, self.encode_batch(probes), strict=True)),
            **self._write(folder),
        }
        content = json.dumps(record, ensure_ascii=False, indent=0)
        write_file(folder / FILE_NAME, content.encode())

    def _join(self, ids: list[int]) -> str:
        """The text of ids that stand for text."""
        raise NotImplementedError

    def _begins_word(self, i: int) -> bool:
        """Whether an id that stands for text begins a word; a space belongs to what follows."""
        raise NotImplementedError

    def _write(self, folder: Path) -> dict[str, Any]:
        """Writes files of its own and gives what else tokenizer.json has to hold."""
        raise NotImplementedError

    def _read(self, folder: Path, record: dict[str, Any]) -> None:
        raise NotImplementedError


class _Pieces(Tokenizer):
    """A list of pieces: the most frequent ones of the training text.

    Args:
        vocab_size: most ids, the four special ones included.
    """

    separator: ClassVar[str]

    def __init__(self, vocab_size: VocabSize = 8000) -> None:
        self.vocab_size = vocab_size

    def split(self, text: str) -> Iterable[str]:
        """The pieces of a text."""
        raise NotImplementedError

    def fit(self, texts: Iterable[str]) -> None:
        counts = Counter(itertools.chain.from_iterable(map(self.split, texts)))
        if not counts:
            raise DataError(f"A {self.name} tokenizer needs text to learn from; there is none.")
        ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
        self._set(ranked[: self.vocab_size - len(SPECIAL)])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        get = self._id_of.get
        return [[get(piece, UNK) for piece in self.split(text)] for text in texts]

    def pieces(self) -> list[str]:
        return self._pieces

    def _set(self, pieces: list[str]) -> None:
        self._pieces = pieces
        self._id_of = {piece: i for i, piece in enumerate(pieces, start=len(SPECIAL))}
        self.vocab_size = len(SPECIAL) + len(pieces)

    def _join(self, ids: list[int]) -> str:
        offset = len(SPECIAL)
        return self.separator.join(
            UNKNOWN_TEXT if i == UNK else self._pieces[i - offset] for i in ids
        )

    def _write(self, folder: Path) -> dict[str, Any]:
        return {"pieces": self._pieces}

    def _read(self, folder: Path, record: dict[str, Any]) -> None:
        self._set(record["pieces"])


class Words(_Pieces):
    """Words divided by white space; a word that training did not have is UNK."""

    name = "words"
    separator = " "

    def split(self, text: str) -> list[str]:
        return text.split()

    def _begins_word(self, i: int) -> bool:
        return True


class Characters(_Pieces):
    """Unicode characters, the space among them; one that training did not have is UNK."""

    name = "characters"
    separator = ""

    def split(self, text: str) -> str:
        return text

    def _begins_word(self, i: int) -> bool:
        return self._pieces[i - len(SPECIAL)].isspace()


class Bytes(Tokenizer):
    """The bytes of the text in UTF-8: 256 pieces, nothing to learn, nothing unknown."""

    name = "bytes"

    def __init__(self) -> None:
        self.vocab_size = len(SPECIAL) + NUM_BYTES

    def fit(self, texts: Iterable[str]) -> None:
        pass

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[byte + len(SPECIAL) for byte in text.encode()] for text in texts]

    def pieces(self) -> list[str]:
        return [f"<{byte:02x}>" for byte in range(NUM_BYTES)]

    def _begins_word(self, i: int) -> bool:
        return bytes([i - len(SPECIAL)]).isspace()

    def _join(self, ids: list[int]) -> str:
        # A model may write bytes that are no UTF-8, and must not stop an evaluation with it.
        content = b"".join(
            UNKNOWN_TEXT.encode() if i == UNK else bytes([i - len(SPECIAL)]) for i in ids
        )
        return content.decode(errors="replace")

    def _write(self, folder: Path) -> dict[str, Any]:
        return {}

    def _read(self, folder: Path, record: dict[str, Any]) -> None:
        pass
