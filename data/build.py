"""Sources and tokenizers from the blocks of a config, and tokenizers from files."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import registry
from data.files import digest, locked, new_folder, storage_errors
from data.hugging_face import HuggingFace, is_published, read_config
from data.sources import SOURCES, Source
from data.subwords import BPE, Unigram
from data.tokenizers import FILE_NAME, FORMAT, Bytes, Characters, Tokenizer, Words
from errors import DataError


class Saved(Tokenizer):
    """The tokenizer of a model that is trained further.

    Args:
        path: the folder: RUN/tokenizer, or one of published weights.
    """

    name = "saved"

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()


TOKENIZERS: dict[str, type[Tokenizer]] = {
    kind.name: kind for kind in (BPE, Unigram, Words, Characters, Bytes, Saved, HuggingFace)
}


def build_source(
    block: Mapping[str, Any], data_dir: str | Path, path: str = "config.task.source"
) -> Source:
    """The source of text pairs that a config block names; reads little or nothing yet.

    Args:
        block: "name" and the options of its class.
        data_dir: where a source may keep what it prepares.
        path: the block's place in the config, for messages.
    """
    return registry.build("source", SOURCES, block, path, cache_dir=str(data_dir))


def build_tokenizer(
    block: Mapping[str, Any],
    source: Source,
    data_dir: str | Path,
    path: str = "config.task.tokenizer",
) -> Tokenizer:
    """The tokenizer that a config block names, trained on both sides of the training split.

    Trained once: it is kept in <data_dir>/tokenizers and found again by its options and the
    training text. A damaged one is trained again.
    """
    tokenizer = registry.build("tokenizer", TOKENIZERS, block, path)
    if isinstance(tokenizer, Saved):
        return load_tokenizer(tokenizer.path)
    key = {
        "format": FORMAT,
        "name": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "text": source.split_fingerprint("train"),
    }
    folder = Path(data_dir) / "tokenizers" / digest(key)[:32]
    with locked(folder):
        if folder.exists():
            try:
                return load_tokenizer(folder)
            except DataError:
                with storage_errors(f"remove {folder}"):
                    shutil.rmtree(folder)
        pairs = source.pairs("train")
        tokenizer.fit([text for pair in pairs for text in (pair.source, pair.target)])
        with new_folder(folder) as temporary:
            tokenizer.save(temporary)
    return tokenizer


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote into a folder, verified, or that of published weights.

    Raises:
        DataError: a file is missing, damaged, or no longer cuts the probe texts alike.
    """
    folder = Path(folder)
    if is_published(folder):
        return HuggingFace.from_folder(folder, read_config(folder))
    path = folder / FILE_NAME
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}).") from error
    try:
        kind = registry.choose("tokenizer", TOKENIZERS, record, str(path))
        if record["format"] != FORMAT:
            raise DataError(f"{path}: format {record['format']!r}, this program reads {FORMAT}.")
        tokenizer = kind()
        tokenizer._read(folder, record)
        tokenizer = tokenizer.reserve(record.get("reserved", ()))
        is_whole = (
            tokenizer.vocab_size == record["vocab_size"]
            and tokenizer.fingerprint() == record["fingerprint"]
        )
        texts, ids = zip(*record["probes"], strict=True)
        cuts_alike = tokenizer.encode_batch(texts) == list(ids)
    except DataError:
        raise
    except Exception as error:  # whatever a changed byte leads to
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}).") from error
    if not is_whole:
        raise DataError(f"{path}: damaged (its pieces don't have the digest it names).")
    if not cuts_alike:
        raise DataError(f"{path}: cuts its probe texts otherwise than when it was trained.")
    return tokenizer
