"""Text is tokenised once: the ids of a split are kept on disk and mapped into memory.

    <cache_dir>/tokens/<fingerprint>/ids.npy, offsets.npy, meta.json

The fingerprint covers the text, the tokenizer and the split, so a change of any of them
makes a new folder, and nothing is ever overwritten with other content.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.files import digest, locked, new_folder, storage_errors
from data.sources.base import Source
from data.tokenizers import PAD, Tokenizer
from errors import StorageError

FORMAT = 1
FILES = ("ids.npy", "offsets.npy")
TEXTS_AT_ONCE = 8192


class Tokens(NamedTuple):
    """The ids of a split: source and target of example 0, of example 1, ...

    Attributes:
        ids: all ids in a row, one PAD at the end; without BOS and EOS.
        offsets: int64, two for each example and one more. Example i has its source at
            ids[offsets[2 * i] : offsets[2 * i + 1]] and its target right behind it.
    """

    ids: np.ndarray
    offsets: np.ndarray

    @property
    def num_examples(self) -> int:
        return len(self.offsets) // 2

    @property
    def lengths(self) -> np.ndarray:
        """Ids of each side: shape (num_examples, 2), source and target."""
        return np.diff(self.offsets).reshape(-1, 2)


def load_tokens(source: Source, tokenizer: Tokenizer, split: str, cache_dir: str | Path) -> Tokens:
    """The ids of a split, from the cache or made now.

    Any number of processes may call it at once: one makes the ids, the others wait for them.
    A damaged entry is made again.

    Raises:
        StorageError: the cache cannot be written or read.
    """
    parts = {
        "format": FORMAT,
        "text": source.split_fingerprint(split),
        "tokenizer": tokenizer.fingerprint(),
        "split": split,
    }
    folder = Path(cache_dir) / "tokens" / digest(parts)[:32]
    with locked(folder):
        tokens = _read(folder)
        if tokens is None:
            if folder.exists():
                with storage_errors(f"remove {folder}"):
                    shutil.rmtree(folder)
            _write(folder, tokenise(source, tokenizer, split), parts)
            tokens = _read(folder)
    if tokens is None:
        raise StorageError(f"{folder}: what was written there cannot be read back.")
    return tokens


def tokenise(source: Source, tokenizer: Tokenizer, split: str) -> Tokens:
    """The ids of a split, in memory."""
    pairs = source.pairs(split)
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    parts, lengths = [], []
    for start in range(0, len(pairs), TEXTS_AT_ONCE):
        rows = pairs[start : start + TEXTS_AT_ONCE]
        sources = tokenizer.encode_batch([row.source for row in rows])
        targets = tokenizer.encode_targets([row.target for row in rows])
        encoded = [ids for pair in zip(sources, targets, strict=True) for ids in pair]
        lengths.extend(map(len, encoded))
        parts.append(np.fromiter((i for ids in encoded for i in ids), dtype))
    parts.append(np.array([PAD], dtype))
    return Tokens(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _write(folder: Path, tokens: Tokens, parts: dict) -> None:
    with new_folder(folder) as temporary:
        for name, array in zip(FILES, tokens, strict=True):
            np.save(temporary / name, array)
        meta = dict(parts, sha256={name: _sha256(temporary / name) for name in FILES})
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1))


def _read(folder: Path) -> Tokens | None:
    """The mapped arrays, or None if they are not there or not what was written."""
    try:
        expected = json.loads((folder / "meta.json").read_text())["sha256"]
        if any(_sha256(folder / name) != expected[name] for name in FILES):
            return None
        # A plain view of the mapped file: indexing a memmap itself is slower.
        return Tokens(*(np.asarray(np.load(folder / name, mmap_mode="r")) for name in FILES))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
