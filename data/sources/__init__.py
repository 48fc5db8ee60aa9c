"""Where text pairs come from: one class a kind of source, by the name in the config.

To add one, write a class with `read(split)` in a file here (see base.py; folder.py is a short
one) and add a line to SOURCES. Its options are the arguments of its constructor, checked
against their annotations; `cache_dir` is given by the caller.
"""

from data.sources.base import SPLITS, Example, Source
from data.sources.bible import Bible
from data.sources.folder import Folder
from data.sources.hidden_markov import HiddenMarkov
from data.sources.labelled import LabelledFolder
from data.sources.labelled_tasks import Entailment, MultipleChoice, Similarity, Tagging
from data.sources.prepared import PreparedTFDS
from data.sources.prepared_labels import PreparedLabels
from data.sources.pronunciations import Pronunciations
from data.sources.supporting_facts import SupportingFacts
from data.sources.synthetic import Addition, Copy, Reverse, Sort
from data.sources.toy_language import ToyLanguage
from data.sources.tweets import Tweets

SOURCES: dict[str, type[Source]] = {
    "addition": Addition,
    "bible": Bible,
    "copy": Copy,
    "entailment": Entailment,
    "folder": Folder,
    "hidden_markov": HiddenMarkov,
    "labelled_folder": LabelledFolder,
    "labelled_tfds": PreparedLabels,
    "multiple_choice": MultipleChoice,
    "pronunciations": Pronunciations,
    "reverse": Reverse,
    "similarity": Similarity,
    "sort": Sort,
    "supporting_facts": SupportingFacts,
    "tagging": Tagging,
    "tfds": PreparedTFDS,
    "toy_language": ToyLanguage,
    "tweets": Tweets,
}

__all__ = ["SOURCES", "SPLITS", "Example", "Source"]
