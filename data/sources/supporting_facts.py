"""Questions about a story, with the sentences that the answer follows from.

Stories like the first three tasks of bAbI (Weston et al. 2015), written by a program:

    mary reached rome . john took milk . mary took tea . mary visited oslo . where is tea ?

The answer, oslo, follows from two of the sentences: who has the tea, and where she is. A
model that looks at the story once can find one of them.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

from data.sources.base import Example
from data.sources.synthetic import ATTEMPTS, Synthetic
from errors import ConfigError
from registry import PositiveInt

PEOPLE = ("mary", "john", "sandra", "daniel", "fred", "julie")
PLACES = ("rome", "oslo", "cairo", "lima", "delhi", "paris", "kyoto", "quito")
THINGS = ("milk", "tea", "bread", "money")
# Several verbs and no articles: the full stop is the most frequent word of all.
ARRIVED = ("reached", "entered", "visited")
TOOK = ("took", "grabbed")


@dataclass(eq=False, kw_only=True)
class SupportingFacts(Synthetic):
    """One-word answers that follow from 1, 2 or 3 sentences of a story.

      1: where is mary ?                  the last place that she came to
      2: where is milk ?                  who took it; the last place that they came to
      3: where was milk before oslo ?     who took it; when they came to oslo; from where

    A thing is taken once and kept. `alignment` links the answer with all words of the
    sentences that it follows from.

    Args:
        num_facts: which question is asked.
        min_sentences, max_sentences: of a story, both included.
        num_people, num_places, num_things: at most 6, 8 and 4.
    """

    name = "supporting_facts"

    num_facts: Literal[1, 2, 3] = 1
    min_sentences: PositiveInt = 6
    max_sentences: PositiveInt = 10
    num_people: PositiveInt = 4
    num_places: PositiveInt = 6
    num_things: PositiveInt = 3

    def __post_init__(self):
        field = "config.task.source"
        if self.max_sentences < self.min_sentences:
            raise ConfigError(
                f"{field}.max_sentences: {self.max_sentences} is less than min_sentences, "
                f"{self.min_sentences}."
            )
        for name, known in (("people", PEOPLE), ("places", PLACES), ("things", THINGS)):
            count = getattr(self, f"num_{name}")
            if not (2 if name == "places" else 1) <= count <= len(known):
                raise ConfigError(
                    f"{field}.num_{name} must be at most {len(known)}"
                    f"{' and at least 2' if name == 'places' else ''}, got {count}."
                )

    def draw(self, random_int):
        span = self.max_sentences - self.min_sentences + 1
        for _ in range(ATTEMPTS):
            story = _Story()
            for _ in range(self.min_sentences + random_int(span)):
                self.go_on(story, random_int)
            asked = story.questions(self.num_facts)
            if asked:
                return story.example(*asked[random_int(len(asked))])
        raise ConfigError(
            f"config.task.source: no story of {self.min_sentences} to {self.max_sentences} "
            f"sentences has a question of {self.num_facts} facts. Ask for longer ones."
        )

    def go_on(self, story: "_Story", random_int) -> None:
        """Adds one sentence: somebody takes a thing that nobody has, or comes to a new place."""
        person = PEOPLE[random_int(self.num_people)]
        free = [thing for thing in THINGS[: self.num_things] if thing not in story.taken]
        if free and self.num_facts > 1 and random_int(3) == 0:
            thing = free[random_int(len(free))]
            story.taken[thing] = (person, len(story.sentences))
            story.sentences.append(f"{person} {TOOK[random_int(len(TOOK))]} {thing}")
            return
        visits = story.visits.setdefault(person, [])
        here = visits[-1][0] if visits else None
        places = [place for place in PLACES[: self.num_places] if place != here]
        place = places[random_int(len(places))]
        visits.append((place, len(story.sentences)))
        story.sentences.append(f"{person} {ARRIVED[random_int(len(ARRIVED))]} {place}")


class _Story:
    """What has happened.

    Attributes:
        visits: the places of each person with the numbers of their sentences.
        taken: who took each thing, with the number of the sentence.
    """

    def __init__(self):
        self.sentences: list[str] = []
        self.visits: dict[str, list[tuple[str, int]]] = {}
        self.taken: dict[str, tuple[str, int]] = {}

    def questions(self, num_facts: int) -> list[tuple[str, str, list[int]]]:
        """All (question, answer, numbers of the sentences it follows from)."""
        if num_facts == 1:
            return [
                (f"where is {person}", visits[-1][0], [visits[-1][1]])
                for person, visits in self.visits.items()
            ]
        found = []
        for thing, (person, when) in self.taken.items():
            carried = [visit for visit in self.visits.get(person, []) if visit[1] > when]
            if num_facts == 2 and carried:
                found.append((f"where is {thing}", carried[-1][0], [when, carried[-1][1]]))
            places = [place for place, _ in carried]
            for before, after in itertools.pairwise(carried):
                if num_facts == 3 and places.count(after[0]) == 1:
                    question = f"where was {thing} before {after[0]}"
                    found.append((question, before[0], [when, before[1], after[1]]))
        return found

    def example(self, question: str, answer: str, facts: list[int]) -> Example:
        words, alignment = [], []
        for number, sentence in enumerate(self.sentences):
            if number in facts:
                span = range(len(words), len(words) + len(sentence.split()))
                alignment += [(i, 0) for i in span]
            words += [*sentence.split(), "."]
        return Example(" ".join([*words, *question.split(), "?"]), answer, tuple(alignment))
