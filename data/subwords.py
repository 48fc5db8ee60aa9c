"""Subwords by SentencePiece: BPE and unigram."""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from data.files import write_file
from data.tokenizers import BOS, EOS, FILE_NAME, PAD, UNK, Tokenizer, VocabSize
from errors import ConfigError, DataError

MODEL_NAME = "sentencepiece.model"
WORD_START = "\u2581"  # what SentencePiece writes for the space before a word
MAX_TRAINING_TEXTS = 1_000_000  # more take hours and add nothing; a larger corpus is thinned


class Subwords(Tokenizer):
    """Pieces learned by SentencePiece (Kudo & Richardson 2018).

    Text is normalised (Unicode NFKC, single spaces), and what no piece covers is spelled in
    bytes, so that nothing is unknown.

    Args:
        vocab_size: most ids. It must hold the special ids, 256 bytes and the characters.
    """

    def __init__(self, vocab_size: VocabSize = 4000) -> None:
        self.vocab_size = vocab_size

    def fit(self, texts: Iterable[str]) -> None:
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise DataError(f"A {self.name} tokenizer needs text to learn from; there is none.")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts[:: -(-len(texts) // MAX_TRAINING_TEXTS)]),
                model_writer=model,
                model_type=self.name,
                vocab_size=self.vocab_size,
                hard_vocab_limit=False,  # a small corpus has fewer pieces than asked for
                byte_fallback=True,
                character_coverage=0.9999,
                normalization_rule_name="nmt_nfkc",
                max_sentence_length=1 << 20,
                num_threads=1,  # unigram pieces depend on it
                pad_id=PAD,
                unk_id=UNK,
                bos_id=BOS,
                eos_id=EOS,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ConfigError(self._refusal(str(error))) from error
        self._set(model.getvalue())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts), out_type=int)

    def pieces(self) -> list[str]:
        sp = self._processor
        return [f"{sp.id_to_piece(i)} {sp.get_score(i)!r}" for i in range(sp.vocab_size())]

    def _begins_word(self, i: int) -> bool:
        return self._processor.id_to_piece(i).startswith(WORD_START)

    def _set(self, model: bytes) -> None:
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.vocab_size()

    def _refusal(self, message: str) -> str:
        field = f"config.task.tokenizer.vocab_size: {self.vocab_size}"
        if needed := re.search(r"required_chars\. \d+ vs (\d+)", message):
            return (
                f"{field} is too small for {self.name} on this text: the special ids, 256 bytes "
                f"and its characters need {needed[1]}."
            )
        return f"{field}: SentencePiece cannot train {self.name}: {' '.join(message.split())}"

    def _join(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def _write(self, folder: Path) -> dict[str, Any]:
        write_file(folder / MODEL_NAME, self.model)
        return {"model_sha256": hashlib.sha256(self.model).hexdigest()}

    def _read(self, folder: Path, record: dict[str, Any]) -> None:
        path = folder / MODEL_NAME
        try:
            model = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
        # SentencePiece writes to standard error when a model is damaged: it never sees one.
        if hashlib.sha256(model).hexdigest() != record["model_sha256"]:
            raise DataError(f"{path}: damaged (its digest is not the one in {FILE_NAME}).")
        self._set(model)


class BPE(Subwords):
    """Byte-pair encoding (Sennrich et al. 2016) by SentencePiece."""

    name = "bpe"


class Unigram(Subwords):
    """The most probable cut under a unigram language model (Kudo 2018) by SentencePiece."""

    name = "unigram"
