"""The tokenizer of published weights as one of ours: their pieces under our special ids.

Everything here begins with PAD, UNK, BOS and EOS; theirs stand anywhere, and some stand for two of
ours. So ids are numbered anew: the four first, then all others of theirs in their order. What
stands for two of ours is repeated (`copies`), and models/pretrained repeats its vector likewise.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.corruption import CLS, MASK, SEP
from data.files import storage_errors, write_file
from data.published import Cutter, cutter_of, read_cutter
from data.tensor_files import FILE, INDEX, PICKLES, refuse_pickle
from data.tokenizers import BOS, EOS, FILE_NAME, SPECIAL, Tokenizer
from errors import ConfigError, DataError

FOLDER, CONFIG = "theirs", "config.json"
ENCODERS = ("bert", "roberta")
UNKNOWN, ENDS = ("<unk>", "[UNK]"), ("</s>", "[SEP]", "<|endoftext|>")
BEGINS, MASKS = ("<s>", "[CLS]"), ("[MASK]", "<mask>")


def is_published(path: Path) -> bool:
    """Whether a path is meant as published weights, whole or not: a folder with their files, or
    one of those files that are never opened. A run is not, whatever else is in its folder."""
    if not path.is_dir():
        return path.suffix in PICKLES
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        config = {}
    if isinstance(config, dict) and "task" in config:
        return False
    if isinstance(config, dict) and "model_type" in config:
        return True
    try:
        files = [path / name for name in os.listdir(path)]
    except OSError:
        return False
    meant = (file for file in files if file.name in (FILE, INDEX) or file.suffix in PICKLES)
    return any(file.is_file() for file in meant)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder of published weights; raises DataError."""
    refuse_pickle(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}).") from error
    size = config.get("vocab_size") if isinstance(config, dict) else None
    if type(size) is not int or size < 1:
        raise DataError(f"{path}: vocab_size must be a whole number above 0, got {size!r}.")
    return config


class Source(NamedTuple):
    """What of a published tokenizer its own files don't say.

    Attributes:
        model_type: of config.json.
        special: their ids of PAD, UNK, BOS and EOS.
        num_ids: rows of the model's embeddings, of which the last may have no token.
        prefix: their ids with which each text begins.
    """

    model_type: str
    special: tuple[int, int, int, int]
    num_ids: int
    prefix: tuple[int, ...] = ()


class HuggingFace(Tokenizer):
    """Cuts text as published weights expect it; comes with them, trained by others.

    Attributes:
        source: where it comes from.
        theirs: their id of each of ours, (vocab_size,).
        copies: our ids that repeat one of theirs.
    """

    name = "hugging_face"
    vocab_size = 0
    source: Source
    theirs: np.ndarray
    copies: tuple[int, ...]

    @classmethod
    def from_folder(cls, folder: Path, config: Mapping[str, Any]) -> "HuggingFace":
        """The tokenizer of a folder of published weights.

        Raises:
            DataError: it is missing, damaged, or not that of the model of config.json.
        """
        cutter = read_cutter(folder, config["model_type"])
        found = cls()
        found._set(cutter, source_of(cutter.ids, config))
        return found

    def fit(self, texts: Iterable[str]) -> None:
        raise ConfigError(
            "config.task.tokenizer: 'hugging_face' comes with published weights. To use that of a "
            "run or of their folder: {'name': 'saved', 'path': 'RUN/tokenizer or FOLDER'}."
        )

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._renumbered(self._cutter.encode_batch(texts))

    def encode_targets(self, texts: Sequence[str]) -> list[list[int]]:
        return self._renumbered(self._cutter.encode_targets(texts))

    def _renumbered(self, theirs: list[list[int]]) -> list[list[int]]:
        prefix = self._ours[list(self.source.prefix)].tolist()
        return [[*prefix, *self._ours[np.array(ids, np.int64)].tolist()] for ids in theirs]

    def decode(self, ids: Iterable[int]) -> str:
        prefix = set(self._ours[list(self.source.prefix)].tolist())
        return super().decode(i for i in ids if int(i) not in prefix)

    def text_ids(self) -> np.ndarray:
        return np.array([i for i in super().text_ids() if self._pieces[i]], np.int64)

    def pieces(self) -> list[str]:
        return self._pieces

    def fingerprint(self) -> str:
        content = json.dumps([super().fingerprint(), self._digests()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def files(self) -> Mapping[str, bytes]:
        """Their files, by name."""
        return self._cutter.files

    def _set(self, cutter: Cutter, source: Source) -> None:
        if (largest := max(cutter.ids.values())) >= source.num_ids:
            raise DataError(
                f"The tokenizer has an id {largest}, and config.json a vocab_size of "
                f"{source.num_ids}."
            )
        self._cutter, self.source = cutter, source
        special = source.special
        # Of ours that are one id of theirs, the end stands for it, or else the first.
        kept = {their: our for our, their in reversed(list(enumerate(special)))}
        kept[special[EOS]] = EOS
        self.copies = tuple(i for i, their in enumerate(special) if kept[their] != i)
        rest = np.setdiff1d(np.arange(source.num_ids), special)
        self.theirs = np.concatenate([np.array(special), rest])
        self._ours = np.zeros(source.num_ids, np.int64)
        alone = np.setdiff1d(np.arange(len(self.theirs)), self.copies)
        self._ours[self.theirs[alone]] = alone
        self.vocab_size = len(self.theirs)
        tokens = {i: token for token, i in cutter.ids.items()}
        names = [tokens.get(int(i), "") for i in self.theirs]
        self._pieces = [SPECIAL[i] if i in self.copies else name for i, name in enumerate(names)]
        self.reserved = self._named(cutter.ids)

    def _named(self, ids: Mapping[str, int]) -> dict[str, int]:
        """Our ids of what stands for no text, by the names that tasks ask for."""
        names = {token: i for token, i in ids.items() if token.startswith("<extra_id_")}
        mask = _first(ids, MASKS)
        names |= {} if mask is None else {MASK: mask}
        named = {token: int(self._ours[i]) for token, i in sorted(names.items())}
        named |= {CLS: BOS, SEP: EOS} if self.source.model_type in ENCODERS else {}
        return named | {self._pieces[self._ours[i]]: int(self._ours[i]) for i in self.source.prefix}

    def _join(self, ids: list[int]) -> str:
        return self._cutter.decode([int(self.theirs[i]) for i in ids if self._pieces[i]])

    def _begins_word(self, i: int) -> bool:
        return self._cutter.begins_word(self._pieces[i])

    def _digests(self) -> dict[str, str]:
        return {name: hashlib.sha256(x).hexdigest() for name, x in self._cutter.files.items()}

    def _write(self, folder: Path) -> dict[str, Any]:
        with storage_errors(f"write {folder / FOLDER}"):
            (folder / FOLDER).mkdir(exist_ok=True)
        for name, content in self._cutter.files.items():
            write_file(folder / FOLDER / name, content)
        return {"files": self._digests(), "source": self.source._asdict()}

    def _read(self, folder: Path, record: dict[str, Any]) -> None:
        files = {}
        for name, wanted in record["files"].items():
            path = folder / FOLDER / Path(name).name
            try:
                files[name] = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
            # The libraries may end the process over damaged files: they never see one.
            if hashlib.sha256(files[name]).hexdigest() != wanted:
                raise DataError(f"{path}: damaged (its digest is not the one in {FILE_NAME}).")
        source = record["source"]
        for name in ("special", "prefix"):
            source[name] = tuple(source[name])
        self._set(cutter_of(files), Source(**source))


def source_of(ids: Mapping[str, int], config: Mapping[str, Any]) -> Source:
    """The special ids of a model, from its config.json and the names of its tokens.

    A decoder begins with what its config says; T5 begins with padding. What a model lacks is
    its end, or else its unknown token: GPT-2 has no other special id.

    Raises:
        DataError: there is nothing that could be the end.
    """

    def given(field: str) -> int | None:
        value = config.get(field)
        return value[0] if isinstance(value, list) else value

    model_type, num_ids = config["model_type"], config["vocab_size"]
    unknown = _first(ids, UNKNOWN)
    # The fields of configs that only hold the defaults of their class name no token.
    named = {field: given(f"{field}_token_id") for field in ("pad", "bos", "eos")}
    named = {field: i if i in ids.values() else None for field, i in named.items()}
    end = _either(named["eos"], _first(ids, ENDS), unknown)
    if end is None:
        raise DataError(f"The tokenizer has none of {', '.join((*ENDS, *UNKNOWN))}.")
    pad = _either(named["pad"], end)
    if config.get("is_encoder_decoder"):
        start = given("decoder_start_token_id")
        begin = pad if start is None else start
    else:
        begin = _either(named["bos"], _first(ids, BEGINS), end)
    special = (pad, _either(unknown, end), begin, end)
    if max(special) >= num_ids:
        raise DataError(f"config.json: a special id is above vocab_size: {list(special)}.")
    prefix = (ids["<s>"],) if model_type == "bart" and "<s>" in ids else ()
    return Source(model_type, special, num_ids, prefix)


def _first(ids: Mapping[str, int], names: Iterable[str]) -> int | None:
    """The id of the first name that there is."""
    return next((ids[name] for name in names if name in ids), None)


def _either(*found: int | None) -> Any:
    """The first that is not None."""
    return next((i for i in found if i is not None), None)
