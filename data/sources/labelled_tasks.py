"""Labelled tasks that a program writes, with answers that follow from a few rules.

Entailment, graded similarity, multiple choice and the tagging of words: what GPT and BERT are
fine-tuned on, small enough for a test and with a known best score, which is perfect.
"""

import itertools
from typing import NamedTuple

from data.sources.labelled import labelled
from data.sources.synthetic import ATTEMPTS, Synthetic
from errors import ConfigError

# Each word with the word above it: what a poodle is, a dog is.
NOUNS = {
    "animal": "",
    "dog": "animal",
    "poodle": "dog",
    "beagle": "dog",
    "cat": "animal",
    "siamese": "cat",
    "bird": "animal",
    "eagle": "bird",
    "sparrow": "bird",
    "person": "",
    "child": "person",
    "girl": "child",
    "boy": "child",
    "artist": "person",
    "painter": "artist",
    "singer": "artist",
}
VERBS = {
    "moves": "",
    "walks": "moves",
    "strolls": "walks",
    "runs": "moves",
    "sprints": "runs",
    "eats": "",
    "nibbles": "eats",
    "devours": "eats",
    "calls": "",
    "shouts": "calls",
    "whispers": "calls",
}


def is_a(word: str, other: str, above: dict[str, str]) -> bool:
    """Whether all that the word names is named by the other too."""
    while word and word != other:
        word = above[word]
    return word == other


class Statement(NamedTuple):
    """`every dog runs`, `some dog runs` or `no dog runs`."""

    quantifier: str
    noun: str
    verb: str


def follows(premise: Statement, hypothesis: Statement) -> str:
    """Entailment, contradiction or neutral, where each noun names at least one thing.

    Natural logic (MacCartney & Manning 2007): `every` and `no` may go down in the noun and `some`
    up; in the verb `every` and `some` go up and `no` goes down. Nouns and verbs of which neither
    is above the other say nothing of one another.
    """

    def within(one: Statement, other: Statement) -> bool:
        return is_a(one.noun, other.noun, NOUNS)

    def implied(one: Statement, other: Statement) -> bool:
        return is_a(one.verb, other.verb, VERBS)

    down, up = within(hypothesis, premise), within(premise, hypothesis)
    verb_up, verb_down = implied(premise, hypothesis), implied(hypothesis, premise)
    entailed = {
        ("every", "every"): down and verb_up,
        ("every", "some"): (down or up) and verb_up,
        ("some", "some"): up and verb_up,
        ("no", "no"): down and verb_down,
    }
    refuted = {
        ("every", "no"): (down or up) and verb_up,
        ("some", "no"): up and verb_up,
        ("no", "every"): (down or up) and verb_down,
        ("no", "some"): down and verb_down,
    }
    pair = (premise.quantifier, hypothesis.quantifier)
    if entailed.get(pair):
        return "entailment"
    return "contradiction" if refuted.get(pair) else "neutral"


class Entailment(Synthetic):
    """Does the second statement follow from the first? Each answer a third of the time."""

    name = "entailment"

    def draw(self, random_int):
        wanted = ("entailment", "contradiction", "neutral")[random_int(3)]
        for _ in range(ATTEMPTS):
            pair = [self.statement(random_int) for _ in range(2)]
            if follows(*pair) == wanted:
                return labelled([" ".join(one) for one in pair], wanted)
        raise ConfigError(self.used_up("train"))

    def statement(self, random_int) -> Statement:
        quantifier = ("every", "some", "no")[random_int(3)]
        nouns, verbs = list(NOUNS), list(VERBS)
        return Statement(quantifier, nouns[random_int(len(nouns))], verbs[random_int(len(verbs))])


# Slots of a sentence: families of two meanings with two words each.
SLOTS = (
    ((("big", "large"), ("tall", "high")), (("red", "scarlet"), ("blue", "azure"))),
    ((("dog", "hound"), ("cat", "kitten")), (("car", "auto"), ("bike", "bicycle"))),
    ((("halts", "stops"), ("rests", "waits")), (("leaves", "departs"), ("turns", "swerves"))),
    ((("street", "road"), ("path", "track")), (("house", "home"), ("shop", "store"))),
)
MOST_ALIKE = 5.0


class Similarity(Synthetic):
    """How alike are two sentences, from 0 to 5?

    `the big dog halts near the road` has four words that vary. The score is 5 times the mean over
    them: 1 for the same meaning, one half for another of the same family, else 0.
    """

    name = "similarity"

    def draw(self, random_int):
        words, points = [], 0.0
        for families in SLOTS:
            first = [random_int(2) for _ in range(3)]  # family, meaning, word
            second = [random_int(2) for _ in range(3)]
            points += (first[0] == second[0]) * (0.5 + 0.5 * (first[1] == second[1]))
            words.append([families[f][m][w] for f, m, w in (first, second)])
        texts = ["the {} {} {} near the {}".format(*chosen) for chosen in zip(*words, strict=True)]
        return labelled(texts, f"{MOST_ALIKE * points / len(SLOTS):.6g}")


NAMES = ("ann", "bob", "carl", "dora", "emil", "fred", "gina", "hugo", "ida", "john")
# Each with the rank of the answer, the oldest first. The last two follow from one fact, the others
# from both: without some that are easy, small models stay at chance.
QUESTIONS = (
    ("who is the oldest ?", 0),
    ("who is in the middle ?", 1),
    ("who is the youngest ?", 2),
    ("who is older than {} ?", 0),
    ("who is younger than {} ?", 2),
)


class MultipleChoice(Synthetic):
    """Which of three texts answers the question? The label is its number, from 0.

    `bob is older than ann . carl is older than bob . who is the oldest ?`: carl.
    """

    name = "multiple_choice"

    def draw(self, random_int):
        left = list(NAMES)
        people = [left.pop(random_int(len(left))) for _ in range(3)]  # the oldest first
        facts = []
        for older, younger in itertools.pairwise(people):
            said = (older, "is older than", younger), (younger, "is younger than", older)
            facts.append(" ".join(said[random_int(2)]))
        if random_int(2):
            facts.reverse()
        asked, rank = QUESTIONS[random_int(len(QUESTIONS))]
        asked, answer = asked.format(people[1]), people[rank]
        options = [people.pop(random_int(len(people))) for _ in range(3)]
        question = " . ".join([*facts, asked])
        return labelled([question, *options], str(options.index(answer)))


TAGGED = {
    "DET": ("the", "a", "this", "every"),
    "PRON": ("they", "we", "you"),
    "ADJ": ("light", "kind", "slow", "clean"),
    "NOUN": ("walk", "watch", "play", "light", "kind", "cook", "boat"),
    "VERB": ("walk", "watch", "play", "light", "cook", "clean", "slow"),
    "ADV": ("often", "never"),
}


class Tagging(Synthetic):
    """The part of speech of each word: many words are two things, and only their place says which.

    `the kind cook often watch a light`: DET ADJ NOUN ADV VERB DET NOUN.
    """

    name = "tagging"

    def draw(self, random_int):
        tags = self.phrase(random_int)
        tags += ["ADV"] * random_int(2) + ["VERB"] + self.phrase(random_int)
        words = [TAGGED[tag][random_int(len(TAGGED[tag]))] for tag in tags]
        return labelled([" ".join(words)], " ".join(tags))

    def phrase(self, random_int) -> list[str]:
        """The tags of what does or suffers something."""
        if random_int(4) == 0:
            return ["PRON"]
        return ["DET", *["ADJ"] * random_int(3), "NOUN"]
