"""Where text pairs come from: one class a kind of source, by the name in the config.

To add one, write a class with `read(split)` in a file here (see base.py; folder.py is a short
one) and add a line to SOURCES. Its options are the arguments of its constructor, checked
against their annotations; `cache_dir` is given by the caller.
"""

from data.sources.base import SPLITS, Example, Source
from data.sources.bible import Bible
from data.sources.folder import Folder
from data.sources.hidden_markov import HiddenMarkov
from data.sources.prepared import PreparedTFDS
from data.sources.pronunciations import Pronunciations
from data.sources.supporting_facts import SupportingFacts
from data.sources.synthetic import Addition, Copy, Reverse, Sort
from data.sources.toy_language import ToyLanguage

SOURCES: dict[str, type[Source]] = {
    "addition": Addition,
    "bible": Bible,
    "copy": Copy,
    "folder": Folder,
    "hidden_markov": HiddenMarkov,
    "pronunciations": Pronunciations,
    "reverse": Reverse,
    "sort": Sort,
    "supporting_facts": SupportingFacts,
    "tfds": PreparedTFDS,
    "toy_language": ToyLanguage,
}

__all__ = ["SOURCES", "SPLITS", "Example", "Source"]
