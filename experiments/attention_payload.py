"""What an attention page shows of one or more runs, as plain data.

{"runs": [{"name", "about", "heads": [{"part", "layer", "head"}], "effects", "roles", "scores"}],
 "sentences": [{"title", "views": [{"source", "reads", "writes", "links", "weights"}]}]}

with a view for each run. `reads` are the tokens that go into the decoder or language model (BOS
first) and `writes` those that come out (EOS last); the weights of all heads lie one after another.
Effects, roles and scores are keyed by "part.layer.head".
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import data
from analysis import alignment
from analysis.attention import ACROSS, Head, attention_weights, by_head
from data.denoising_batches import corrupted_pair
from errors import ConfigError
from experiments.attention_page import pack, visible
from experiments.head_tables import read_effects, read_roles
from tasks.search import Translator
from trained import TOKEN_PREDICTORS, TrainedRun, load_run

SPECIAL = {data.BOS: "<s>", data.EOS: "</s>", data.PAD: "<pad>"}
NOTHING = np.zeros(0, np.int32)
OVER_SENTENCES = ("memory_network",)  # models whose weights are not over tokens


class Reading(NamedTuple):
    """What a model looked at in one sentence.

    Attributes:
        source, target: ids with their ends; no source for a language model, no target for an
            encoder.
        maps: weights of each head.
        links: (source, target) tokens of known translations of each other.
        words: of each token of the source and of the target, its word; -1 for the ends.
        sides: the side of the example that stands in source and in target; "" for none, for
            both, and for a text of which a part is hidden.
    """

    source: np.ndarray
    target: np.ndarray
    maps: dict[Head, np.ndarray]
    links: list[tuple[int, int]]
    words: list[list[int]]
    sides: tuple[str, str]


class Shown:
    """A run that reads sentences.

    Args:
        max_tokens: longer sides are cut.

    Raises:
        ConfigError: it is no run directory, or of a model that does not look at its tokens.
    """

    def __init__(self, workdir: str, checkpoint: int | None, max_tokens: int) -> None:
        self.workdir, self.max_tokens = Path(workdir), max_tokens
        self.run: TrainedRun = load_run(workdir, TOKEN_PREDICTORS, checkpoint)
        self.kind, self.task = self.run.model.kind, self.run.settings["task"]
        name = self.run.settings["model"]["name"]
        if name in OVER_SENTENCES:
            raise ConfigError(f"--workdir {workdir}: {name} looks at sentences, not at tokens.")
        self.errors: dict[Head, alignment.ErrorCounts] = defaultdict(alignment.ErrorCounts)

    def read(self, example: data.Example) -> Reading:
        """Reads an example as the model has learned to read.

        A model that translates writes its own target if there is none; one that has learned
        what is hidden in a text gets it so; an encoder reads [CLS] text [SEP].

        Raises:
            ConfigError: the model has no attention.
        """
        encode = self.run.tokenizer.encode
        side = self.task.get("side", "target")
        text = example.target if side != "source" and example.target else example.source
        source = target = NOTHING
        sides = ("", "" if side == "both" else side)
        if self.task["name"] == "denoising":
            source, target = self._corrupted(encode(text))
            sides = ("", "")
        elif self.kind == "seq2seq":
            source = self._ended(encode(example.source))
            written = (
                self.run.tokenizer.encode_targets([example.target])[0]
                if example.target
                else self._translate(source)
            )
            target, sides = self._ended(written), ("source", "target")
        elif self.kind == "encoder":
            source, sides = self.enclosed(encode(text)), (side, "")
        else:
            both = side == "both" and example.target
            target = self._ended([*encode(example.source), data.BOS] * bool(both) + encode(text))
        words = [self._words(ids) for ids in (source, target)]
        links = self._links(example, words) if sides == ("source", "target") else []
        return Reading(source, target, self.maps(source, target), links, words, sides)

    def maps(self, source: np.ndarray, target: np.ndarray) -> dict[Head, np.ndarray]:
        """The weights of each head; of source and target those are read that the model has.

        Raises:
            ConfigError: it has no attention.
        """
        given = (
            None if self.kind == "language_model" else source,
            None if self.kind == "encoder" else target,
        )
        try:
            return by_head(attention_weights(self.run.model, self.run.variables, *given))
        except ConfigError as error:
            name = self.run.settings["model"]["name"]
            raise ConfigError(
                f"--workdir {self.workdir}: this model ({name}) has no attention."
            ) from error

    def view(self, reading: Reading) -> dict[str, Any]:
        """The part of the payload about one sentence."""
        reads = np.concatenate([[data.BOS], reading.target])[:-1]
        sides = {"source": reading.source, "reads": reads, "writes": reading.target}
        return {name: self._labels(ids) for name, ids in sides.items()} | {
            "links": [list(link) for link in reading.links],
            "weights": pack(reading.maps.values()),
        }

    def about(self, heads: Sequence[Head]) -> dict[str, Any]:
        """The part of the payload about the run, once it has read all sentences."""
        steps = ", ".join(map(str, self.run.steps))
        name = self.run.settings["model"]["name"]
        errors = {
            key(head): {"AER": counts.error_rate, "precision": counts.precision}
            for head, counts in self.errors.items()
            if counts.sure
        }
        roles = {
            key(head): [
                {
                    "role": visible(str(row.get("role", ""))),
                    "score": row["score"],
                    "chance": row.get("chance"),
                    "label": row.get("label") == "yes",
                }
                for row in rows
                if "score" in row
            ]
            for head, rows in read_roles(self.workdir).items()
        }
        return {
            "name": visible(self.workdir.resolve().name or "run"),
            "about": visible(f"{name}, step{'s' * (len(self.run.steps) > 1)} {steps}"),
            "heads": [head._asdict() for head in heads],
            "effects": {key(head): row for head, row in read_effects(self.workdir).items()},
            "roles": roles,
            "scores": errors,
        }

    def _ended(self, ids: Sequence[int]) -> np.ndarray:
        return np.array([*ids[: self.max_tokens - 1], data.EOS], np.int32)

    def enclosed(self, ids: Sequence[int]) -> np.ndarray:
        """[CLS] text [SEP], as an encoder reads it."""
        begin, end = (self.run.tokenizer.reserved[name] for name in (data.CLS, data.SEP))
        return np.array([begin, *ids[: self.max_tokens - 2], end], np.int32)

    def _corrupted(self, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """What is left of a text, and what is to be written, under one corruption of all."""
        task = self.task
        cut = np.array(ids[: self.max_tokens - 1], np.int32)
        how = task["objective"], self.run.tokenizer.reserved, task["noise_rate"], task["mean_span"]
        source, target = corrupted_pair(cut, 0, *how)
        return self._ended(source.tolist()), self._ended(target.tolist())

    def _words(self, ids: np.ndarray) -> list[int]:
        """The word of each token of a side; -1 for [CLS] and for the end."""
        if not len(ids):
            return []
        first = int(self.kind == "encoder")
        found = alignment.word_of_each_piece(self.run.tokenizer, ids[first:-1].tolist())
        return [-1] * first + [*found, -1]

    def _translate(self, source: np.ndarray) -> Sequence[int]:
        names = ("num_beams", "length_penalty", "max_length")
        options = {name: self.task[name] for name in names}
        translator = Translator(self.run.model, self.run.variables, self.run.tokenizer, **options)
        return translator.translate_ids([source])[0].tolist()

    def _links(self, example: data.Example, words: list[list[int]]) -> list[tuple[int, int]]:
        """Known links between words as links between tokens."""
        known = set(example.alignment or ())
        if not known:
            return []
        pairs = [(s, t) for s in range(len(words[0])) for t in range(len(words[1]))]
        return [(s, t) for s, t in pairs if (words[0][s], words[1][t]) in known]

    def count_errors(self, example: data.Example, reading: Reading) -> None:
        """Adds the sentence to the alignment error rate of each head that looks across."""
        if not example.alignment or reading.sides != ("source", "target"):
            return
        for head, map_TS in reading.maps.items():
            if head.part in ACROSS:
                found = alignment.hard_links(alignment.word_weights(map_TS, *reading.words))
                self.errors[head].add(found, example.alignment)

    def _labels(self, ids: np.ndarray) -> list[str]:
        """Tokens to look at; a piece that goes on a word begins with a dot."""
        tokenizer = self.run.tokenizer
        dotted = tokenizer.name in ("bpe", "unigram")
        words = alignment.word_of_each_piece(tokenizer, ids.tolist())
        labels, last = [], -1
        for token, word in zip(ids.tolist(), words, strict=True):
            text = SPECIAL.get(token)
            if text is None:
                goes_on = dotted and word == last
                text = ("·" if goes_on else "") + visible(tokenizer.decode([token]))
                last = word
            labels.append(text)
        return labels


def key(head: Head) -> str:
    """How the payload names a head."""
    return ".".join(map(str, head))


def build(shown: Sequence[Shown], examples: Sequence[data.Example]) -> dict[str, Any]:
    """The payload of runs that read the same sentences."""
    sentences, heads = [], {}
    for example in examples:
        views = []
        for run in shown:
            reading = run.read(example)
            run.count_errors(example, reading)
            heads[run] = list(reading.maps)
            views.append(run.view(reading))
        sentences.append({"title": visible(example.source or example.target), "views": views})
    return {"runs": [run.about(heads[run]) for run in shown], "sentences": sentences}
