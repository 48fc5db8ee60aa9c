"""Which head knows what "it" is? Pairs of sentences that differ in their last word alone.

  python experiments/coreference.py --workdir=RUN

'The animal did not cross the street because it was too tired', or 'wide' (Levesque et al. 2012;
Vaswani et al. 2017, figure 5): a head that resolves the pronoun looks from it at the animal under
the first ending and at the street under the second. Prints P(animal) - P(street) of each head
under both, means over all pairs, and writes RUN/analysis/coreference.csv. Works on runs whose
languages are English or Italian and whose tokenizer can write the words.

A head looks from the pronoun; a causal one from the ending, which it has not seen before; one
across while it writes the pronoun. Italian leaves the pronoun out: there it is the ending.

Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
from analysis.attention import Head
from analysis.roles import coreference_contrast
from errors import ConfigError, Parser
from experiments.attention_payload import ACROSS, Reading, Shown
from training.files import storage_errors, write_csv

COLUMNS = ("part", "layer", "head", "first_ending", "second_ending", "contrast", "pairs", "label")
MARGIN = 0.1  # of weight, to be called a head that resolves
MAX_TOKENS = 128

Noun = dict[str, tuple[str, str]]  # by language: with its article; "o" or "a", its Italian ending


def noun(english: str, italian: str, ending: str) -> Noun:
    return {"en": (english, ""), "it": (italian, ending)}


class Frame(NamedTuple):
    """Sentences that agree but for two nouns, and the ending that is said of each noun."""

    templates: Mapping[str, str]
    firsts: Sequence[Noun]
    seconds: Sequence[Noun]
    endings: Mapping[str, tuple[str, str]]  # * stands for the ending of the noun's gender


FRAMES = (
    Frame(
        {
            "en": "{first} did not cross {second} because {it} was too {ending}",
            "it": "{first} non attraversò {second} perché era troppo {ending}",
        },
        [
            noun("the animal", "l'animale", "o"),
            noun("the dog", "il cane", "o"),
            noun("the horse", "il cavallo", "o"),
            noun("the lion", "il leone", "o"),
            noun("the sheep", "la pecora", "a"),
            noun("the cow", "la mucca", "a"),
        ],
        [
            noun("the street", "la strada", "a"),
            noun("the river", "il fiume", "o"),
            noun("the sea", "il mare", "o"),
            noun("the field", "il campo", "o"),
        ],
        {"en": ("tired", "wide"), "it": ("stanc*", "larg*")},
    ),
    Frame(
        {
            "en": "{first} did not fit into {second} because {it} was too {ending}",
            "it": "{first} non entrava dentro {second} perché era troppo {ending}",
        },
        [
            noun("the stone", "la pietra", "a"),
            noun("the book", "il libro", "o"),
            noun("the table", "la tavola", "a"),
        ],
        [
            noun("the box", "la scatola", "a"),
            noun("the bag", "il sacco", "o"),
            noun("the house", "la casa", "a"),
        ],
        {"en": ("large", "small"), "it": ("gross*", "piccol*")},
    ),
)
LANGUAGES = tuple(FRAMES[0].templates)


class Text(NamedTuple):
    """A sentence, and the numbers of its words that stand for each slot."""

    text: str
    words: dict[str, list[int]]


def fill(template: str, **slots: str) -> Text:
    """Puts texts of one or more words into the {slots} of a template."""
    words: list[str] = []
    places = {}
    for word in template.split():
        new = [word]
        if word.startswith("{"):
            new = slots[word[1:-1]].split()
            places[word[1:-1]] = list(range(len(words), len(words) + len(new)))
        words += new
    text = " ".join(words)
    return Text(text[:1].upper() + text[1:], places)


def pairs(language: str) -> Iterator[tuple[Text, Text]]:
    """All sentences of a language under the ending of the first and of the second noun."""
    for frame in FRAMES:
        for nouns in itertools.product(frame.firsts, frame.seconds):
            (first, _), (second, _) = (found[language] for found in nouns)
            one, other = (
                fill(
                    frame.templates[language],
                    first=first,
                    second=second,
                    it="it",
                    ending=ending.replace("*", found[language][1]),
                )
                for found, ending in zip(nouns, frame.endings[language], strict=True)
            )
            yield one, other


class Read(NamedTuple):
    """A sentence as a model read it: its maps, and the tokens of each slot on each side."""

    maps: Mapping[Head, np.ndarray]
    source: Mapping[str, list[int]]
    target: Mapping[str, list[int]]

    def looks(self, part: str) -> tuple[int, list[int], list[int]]:
        """(query, keys of the first noun, keys of the second) of the heads of a part."""
        if part == "decoder":  # BOS comes before what it reads
            end, first, second = (self.target[name] for name in ("ending", "first", "second"))
            return end[-1] + 1, [t + 1 for t in first], [t + 1 for t in second]
        asks = self.target if part in ACROSS else self.source
        query = asks.get("it") or asks["ending"]
        return query[0 if part in ACROSS else -1], self.source["first"], self.source["second"]


def read(shown: Shown, source: Text | None, target: Text) -> Read:
    """Lets a model read a sentence; no source for a model that reads one text."""
    reading: Reading = shown.read(data.Example(source.text if source else target.text, target.text))
    if shown.kind == "encoder":
        source = target
    tokens = [
        {
            name: [i for i, word in enumerate(words) if word in wanted]
            for name, wanted in (text.words if text else {}).items()
        }
        for text, words in zip((source, target), reading.words, strict=True)
    ]
    return Read(reading.maps, *tokens)


def languages_of(options: argparse.Namespace, shown: Shown) -> list[str]:
    """Those of the texts that the model reads: of both sides, or of a language model's one.

    Raises:
        ConfigError: there are no sentences for one of them.
    """
    task = shown.run.settings["task"]
    side = task.get("side", "target")
    if shown.task["name"] == "denoising":
        raise ConfigError(
            f"--workdir {options.workdir}: this model has learned what is hidden in texts (task "
            "denoising), and reads none as a whole."
        )
    is_seq2seq = shown.kind == "seq2seq"
    sides = ["source", "target"] if is_seq2seq or side == "both" else [side]
    found = []
    for side in sides:
        name = f"{side}_language"
        language = getattr(options, name) or task["source"].get(name, "")
        if language not in LANGUAGES or (len(sides) > 1 and not is_seq2seq):
            raise ConfigError(
                f"--workdir {options.workdir}: there are sentences for models that read "
                f"{' or '.join(LANGUAGES)} alone or translate between them; its {name} is "
                f"{language!r}. Say --{name} if it is one of these."
            )
        found.append(language)
    return found


def readable(shown: Shown, languages: Sequence[str]) -> list[list[tuple[Text, ...]]]:
    """The pairs that the tokenizer can write: of each, both endings, (source, target) or (text,).

    Raises:
        ConfigError: there are none.
    """
    encode, lacking = shown.run.tokenizer.encode, set[str]()
    kept = []
    both = zip(*(pairs(language) for language in languages), strict=True)
    for sides in both:
        texts = [text.text for side in sides for text in side]
        unknown = {w for text in texts for w in text.split() if data.UNK in encode(w)}
        if any(data.UNK in encode(text) for text in texts):
            lacking |= unknown
        else:
            kept.append(list(zip(*sides, strict=True)))
    if not kept:
        raise ConfigError(
            f"--workdir {shown.workdir}: its tokenizer can write none of the sentences; it lacks "
            f"{', '.join(sorted(lacking)[:5])}, ..."
        )
    return kept


def measure(shown: Shown, sentences: Sequence[Any]) -> dict[Head, np.ndarray]:
    """P(first noun) - P(second) of each head, (pairs, 2): under both endings."""
    found: dict[Head, list[tuple[float, float]]] = defaultdict(list)
    for endings in sentences:
        one, other = (read(shown, sides[0] if sides[1:] else None, sides[-1]) for sides in endings)
        for head in one.maps:
            (query, *nouns), (other_query, *_) = (x.looks(head.part) for x in (one, other))
            maps = one.maps[head], other.maps[head]
            found[head].append(coreference_contrast(*maps, (query, other_query), *nouns))
    return {head: np.array(rows) for head, rows in found.items()}


def rows_of(found: Mapping[Head, np.ndarray]) -> list[tuple]:
    """COLUMNS of each head, the largest contrast first."""
    rows = []
    for head, each in found.items():
        first, second = each.mean(axis=0).tolist()
        label = "yes" if first > MARGIN and second < -MARGIN else "no"
        rows.append((*head, first, second, first - second, len(each), label))
    return sorted(rows, key=lambda row: -row[5])


def run(options: argparse.Namespace) -> None:
    """Writes the table and prints it."""
    shown = Shown(options.workdir, options.checkpoint, MAX_TOKENS)
    sentences = readable(shown, languages_of(options, shown))
    rows = rows_of(measure(shown, sentences))
    path = options.output or Path(options.workdir) / "analysis" / "coreference.csv"
    with storage_errors("write", path):
        if options.output is None:
            path.parent.mkdir(exist_ok=True)
        write_csv(path, COLUMNS, rows)
    one, other = sentences[0]
    total = sum(1 for _ in pairs(LANGUAGES[0]))
    print(f"{len(sentences)} of {total} pairs, such as {one[-1].text!r} / {other[-1].text!r}")
    print(f"{'P(first) - P(second) of':<26}{'1st ending':>11}{'2nd ending':>11}   resolves")
    for part, layer, head, first, second, *_, label in rows:
        print(f"{f'{part} {layer}.{head}':<26}{first:+11.3f}{second:+11.3f}   {label}")
    print(f"Written to {path}.")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(__doc__)
    add: Any = parser.add_argument
    add("--workdir", required=True, help="run directory of a model with attention")
    add("--checkpoint", type=int, help="step; default: as the final scores")
    for side in ("source", "target"):
        add(f"--{side}_language", choices=LANGUAGES, help="default: as the run's config says")
    add("--output", type=Path, help="the table [RUN/analysis/coreference.csv]")
    return parser.run(run, argv)


if __name__ == "__main__":
    sys.exit(main())
