"""Letters to phonemes: translation that is scored by phoneme and word error rates."""

from collections.abc import Sequence

import data
from tasks.translation import Translation


class Pronunciation(Translation):
    """Translation of the letters of a word into its phonemes, both divided by spaces.

    Where the source knows several pronunciations of a word (its method `references`), the
    nearest one counts (Yao & Zweig 2015; Toshniwal & Livescu 2016).
    """

    def score(self, outputs: list[str], split: str) -> tuple[dict[str, float], dict[str, str]]:
        """Phoneme and word error rates in percent."""
        phonemes, words = error_rates(
            [output.split() for output in outputs],
            [[sound.split() for sound in known] for known in references_of(self.source, split)],
        )
        note = "percent; of several pronunciations the nearest"
        return (
            {"phoneme_error_rate": phonemes, "word_error_rate": words},
            {"phoneme_error_rate_signature": note, "word_error_rate_signature": note},
        )


def references_of(source: data.Source, split: str) -> list[list[str]]:
    """All pronunciations that a source knows of each word of a split."""
    if hasattr(source, "references"):
        return source.references(split)
    return [[example.target] for example in source.pairs(split)]


def error_rates(
    outputs: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, float]:
    """Edits over phonemes of the nearest references, and words with an edit, in percent."""
    edits, length, wrong = 0, 0, 0
    for output, known in zip(outputs, references, strict=True):
        distance, nearest = nearest_edits(output, known)
        edits, length, wrong = edits + distance, length + nearest, wrong + (distance > 0)
    return 100 * edits / length, 100 * wrong / len(outputs)


def nearest_edits(output: Sequence[str], known: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Edits to the nearest of some pronunciations, and its length."""
    return min((edit_distance(output, sound), len(sound)) for sound in known)


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and substitutions that turn one into the other (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
