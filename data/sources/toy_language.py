"""A small language and its translation, with every word alignment known.

The source is ordered subject, verb, object, with adjectives after their noun; articles and
adjectives agree with the noun in gender and number, verbs with their subject:

    le    sozete  rapafe  non  fosuneranno     li    sokuli  zorezi
    the   N       A       not  will V          the   M       B

    dor   binizir  dokaben  das   sagagis  kafozen  mafeb  wolen  nix
    the   A        N        the   B        M        V      will   not

The target puts adjectives before the noun and the verb at the end of its clause, turns the
negation before the verb into a particle after it, and says the future with a word of its
own. Its nouns have a gender of their own, which their adjectives follow, so a word cannot
be translated by itself.
"""

import random
from dataclasses import dataclass

from data.sources.base import Example
from data.sources.synthetic import Synthetic
from errors import ConfigError
from registry import PositiveInt

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SOURCE_ARTICLES = (("lo", "li"), ("la", "le"))  # [gender][number]
TARGET_ARTICLES = (("der", "dor"), ("dus", "das"))
SOURCE_ENDINGS = (("o", "i"), ("a", "e"))  # nouns by gender and number; adjectives follow
TARGET_PLURAL = "en"  # nouns
TARGET_ENDINGS = (("er", "ir"), ("us", "is"))  # adjectives
SOURCE_VERBS = (("a", "ano"), ("era", "eranno"))  # [present, future][number]
TARGET_VERBS = ("et", "ent")  # [number]; the future is FUTURE and the bare stem
SOURCE_NOT, TARGET_NOT = "non", "nix"
FUTURE = ("wil", "wolen")
SOURCE_AND, TARGET_AND = "e", "und"


@dataclass(eq=False, kw_only=True)
class ToyLanguage(Synthetic):
    """Translation between two small languages: lexicon, reordering, agreement.

    Args:
        num_nouns, num_adjectives, num_verbs: stems of the lexicon, drawn from the seed.
        max_clauses: a sentence joins 1 to this many clauses.
    """

    name = "toy_language"

    num_nouns: PositiveInt = 40
    num_adjectives: PositiveInt = 20
    num_verbs: PositiveInt = 20
    max_clauses: PositiveInt = 2

    def __post_init__(self):
        uniform = random.Random(f"{self.name} lexicon {self.seed}").random
        sizes = self.num_nouns, self.num_adjectives, self.num_verbs
        self.nouns, self.adjectives, self.verbs = _lexicon(lambda n: int(uniform() * n), sizes)
        # (gender in the source, gender in the target) of each noun: independent of each other
        self.genders = [(int(uniform() * 2), int(uniform() * 2)) for _ in self.nouns]

    def draw(self, random_int):
        sentence = _Sentence()
        for clause in range(1 + random_int(self.max_clauses)):
            if clause:
                sentence.both(SOURCE_AND, TARGET_AND)
            self.clause(sentence, random_int)
        return sentence.example()

    def clause(self, sentence: "_Sentence", random_int) -> None:
        """Adds subject, verb and perhaps an object; the verb comes last in the target."""
        number = random_int(2)
        self.noun_phrase(sentence, number, random_int)
        is_negative, is_future = random_int(4) == 0, random_int(3) == 0
        source_stem, target_stem = self.verbs[random_int(self.num_verbs)]
        negation = sentence.source(SOURCE_NOT) if is_negative else None
        verb = sentence.source(source_stem + SOURCE_VERBS[is_future][number])
        if random_int(3):
            self.noun_phrase(sentence, random_int(2), random_int)
        if is_future:
            sentence.target(target_stem, verb)
            sentence.target(FUTURE[number], verb)
        else:
            sentence.target(target_stem + TARGET_VERBS[number], verb)
        if negation is not None:
            sentence.target(TARGET_NOT, negation)

    def noun_phrase(self, sentence: "_Sentence", number: int, random_int) -> None:
        """Adds article, noun and up to two adjectives, all agreeing."""
        noun = random_int(self.num_nouns)
        source_gender, target_gender = self.genders[noun]
        source_stem, target_stem = self.nouns[noun]
        ending = SOURCE_ENDINGS[source_gender][number]
        sentence.both(
            SOURCE_ARTICLES[source_gender][number], TARGET_ARTICLES[target_gender][number]
        )
        noun_at = sentence.source(source_stem + ending)
        for _ in range((0, 0, 1, 2)[random_int(4)]):
            source_adjective, target_adjective = self.adjectives[random_int(self.num_adjectives)]
            form = target_adjective + TARGET_ENDINGS[target_gender][number]
            sentence.target(form, sentence.source(source_adjective + ending))
        sentence.target(target_stem + TARGET_PLURAL * number, noun_at)


class _Sentence:
    """A sentence and its translation while they are made, word by word."""

    def __init__(self):
        self.words, self.translation, self.alignment = [], [], []

    def source(self, word: str) -> int:
        """Adds a source word and gives its index."""
        self.words.append(word)
        return len(self.words) - 1

    def target(self, word: str, source_index: int) -> None:
        """Adds a target word that translates the source word of that index."""
        self.alignment.append((source_index, len(self.translation)))
        self.translation.append(word)

    def both(self, source_word: str, target_word: str) -> None:
        self.target(target_word, self.source(source_word))

    def example(self) -> Example:
        alignment = tuple(sorted(self.alignment))
        return Example(" ".join(self.words), " ".join(self.translation), alignment)


def _lexicon(random_int, sizes: tuple[int, ...]) -> list[list[tuple[str, str]]]:
    """Pairs of stems for each part of speech; no stem stands twice in a language."""
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    most = len(syllables) ** 2 * len(CONSONANTS) // 4  # so that drawing stays quick
    if sum(sizes) > most:
        raise ConfigError(
            f"config.task.source: {sum(sizes)} nouns, adjectives and verbs; at most {most}."
        )
    used: tuple[set[str], set[str]] = set(), set()

    def stem(language: int) -> str:
        while True:
            parts = [syllables[random_int(len(syllables))] for _ in range(2)]
            word = "".join(parts) + CONSONANTS[random_int(len(CONSONANTS))]
            if word not in used[language]:
                used[language].add(word)
                return word

    return [[(stem(0), stem(1)) for _ in range(size)] for size in sizes]
