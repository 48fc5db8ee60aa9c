"""Tasks, by name: what is learned. A new one is a file here and a line in TASKS."""

from collections.abc import Mapping
from typing import Any

import registry
from tasks.base import Evaluation, Task
from tasks.bidirectional import BidirectionalLanguageModelling
from tasks.classification import Classification
from tasks.denoising import Denoising, PrefixLanguageModelling
from tasks.language_modelling import LanguageModelling
from tasks.masked_language_modelling import MaskedLanguageModelling
from tasks.pronunciation import Pronunciation
from tasks.translation import Translation

TASKS: dict[str, type[Task]] = {
    "bidirectional_language_modelling": BidirectionalLanguageModelling,
    "classification": Classification,
    "denoising": Denoising,
    "language_modelling": LanguageModelling,
    "masked_language_modelling": MaskedLanguageModelling,
    "prefix_language_modelling": PrefixLanguageModelling,
    "pronunciation": Pronunciation,
    "translation": Translation,
}

__all__ = ["TASKS", "Evaluation", "Task", "build"]


def build(block: Mapping[str, Any], seed: int, data_dir: str) -> Task:
    """The task that a config block names; reads its data."""
    return registry.build("task", TASKS, block, "config.task", seed=seed, data_dir=data_dir)
