"""Scores of a recurrent decoder, by name: how well each source position fits its state.

A new one is a class here (see base.py) and a line in SCORES.
"""

from models.attention.scores.additive import Additive, CoveredAdditive, OneLayer
from models.attention.scores.base import Score, ScoreOptions
from models.attention.scores.dot import Dot, General, ScaledDot
from models.attention.scores.local import LocalM, LocalP
from models.attention.scores.location import Location
from models.attention.scores.multi_head import MultiHead

SCORES: dict[str, type[Score]] = {
    "additive": Additive,
    "concat": Additive,
    "dot": Dot,
    "general": General,
    "local_m": LocalM,
    "local_p": LocalP,
    "location": Location,
    "multi_head": MultiHead,
    "one_layer": OneLayer,
    "scaled_dot": ScaledDot,
}
COVERED: dict[str, type[Score]] = {"additive": CoveredAdditive, "concat": CoveredAdditive}

__all__ = ["COVERED", "SCORES", "Score", "ScoreOptions"]
