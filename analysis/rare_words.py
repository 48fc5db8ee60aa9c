"""Words that a model does not know: replaced through the alignment, and counted."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
from analysis.alignment import word_of_each_piece, word_weights
from errors import ConfigError, DataError

EMPTY: Mapping[str, str] = {}


def replace_unknown(
    tokenizer: Any,
    source_text: str,
    source: Sequence[int],
    target: Sequence[int],
    weights_TS: np.ndarray,
    lexicon: Mapping[str, str] = EMPTY,
) -> str:
    """The target text, unknown words in it replaced (Luong et al. 2015, Jean et al. 2015).

    A target word with an unknown piece becomes the translation of the source word that it
    looks at most, or, if the lexicon has none, that word itself.

    Args:
        source, target: token ids without EOS.
        weights_TS: attention of the target's pieces to the source's.
        lexicon: translations of source words.
    """
    words = tokenizer.decode(target).split()
    source_words = source_text.split()
    places = word_of_each_piece(tokenizer, target)
    unknown = {place for place, token in zip(places, target, strict=True) if token == data.UNK}
    if not unknown or not source_words:
        return tokenizer.decode(target)
    weights = word_weights(weights_TS, word_of_each_piece(tokenizer, source), places)
    for place in unknown:
        looked_at = source_words[min(int(weights[place].argmax()), len(source_words) - 1)]
        words[place] = lexicon.get(looked_at, looked_at)
    return " ".join(words)


def read_lexicon(path: str | Path) -> dict[str, str]:
    """Source word, a tab, its translation; one pair a line.

    Raises:
        ConfigError: the file cannot be read. DataError: a line that is no pair, by its number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--lexicon {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start + 1}).") from error
    lexicon = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise DataError(f"{path}, line {number}: expected word<TAB>word, got {line[:60]!r}.")
        lexicon[fields[0].strip()] = fields[1].strip()
    return lexicon


class Unknown(NamedTuple):
    """What of some texts a tokenizer does not know.

    Attributes:
        words, types: running words, and different ones.
        unknown_words, unknown_types: those of them with an unknown piece.
        most_frequent: unknown words with their counts, most frequent first.
    """

    words: int
    types: int
    unknown_words: int
    unknown_types: int
    most_frequent: list[tuple[str, int]]


def count_unknown(tokenizer: Any, texts: Iterable[str], show: int = 20) -> Unknown:
    """Counts words divided by spaces that the tokenizer cannot write without UNK."""
    counts = Counter(word for text in texts for word in text.split())
    words = sorted(counts)
    unknown = Counter(
        {
            word: counts[word]
            for word, ids in zip(words, tokenizer.encode_batch(words), strict=True)
            if data.UNK in ids
        }
    )
    return Unknown(
        counts.total(), len(counts), unknown.total(), len(unknown), unknown.most_common(show)
    )
