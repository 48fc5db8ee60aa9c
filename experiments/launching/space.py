"""The space in which a search looks for hyper-parameters: what search_space() of a config says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import registry
from errors import ConfigError
from training import config_files


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both of them in it; whole if both bounds are.

    Args:
        low, high: the bounds.
        log: whether each factor is as likely as the next one, and not each difference.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            least = "above 0 and " * self.log
            raise ConfigError(f"low ({self.low:g}) must be {least}below high ({self.high:g})")

    def extremes(self) -> tuple:
        """Values that a config must take."""
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Args:
        choices: plain values.
    """

    choices: tuple

    def __post_init__(self) -> None:
        plain = all(
            one is None or isinstance(one, bool | int | float | str) for one in self.choices
        )
        if len(set(self.choices)) < 2 or not plain:
            raise ConfigError("choices must be two or more different numbers, texts or flags")

    def extremes(self) -> tuple:
        """Values that a config must take."""
        return self.choices


Space = dict[str, Range | Choice]


def load(config: str) -> Space:
    """The checked space of a config file.

    Raises:
        ConfigError: it has none, or an axis that is none.
    """
    found = config_files.load_search_space(config)
    file = config.partition(":")[0]
    if not isinstance(found, Mapping) or not found:
        raise ConfigError(f"search_space() of {file} must return a dict of fields, not {found!r}.")
    return {
        str(field): _axis(block, f"{file}, search_space(), {field}")
        for field, block in found.items()
    }


def _axis(block: Any, path: str) -> Range | Choice:
    if not isinstance(block, Mapping):
        raise ConfigError(f"{path} must be a block, got {registry.shown(block)}.")
    kind = Choice if "choices" in block else Range
    whole = all(type(block.get(name)) is int for name in ("low", "high"))
    options = registry.check_options("a search space", kind, block, path)
    if whole:
        options |= {name: int(options[name]) for name in ("low", "high")}
    try:
        return kind(**options)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}.") from error


def distributions(space: Space) -> dict[str, Any]:
    """The space in the words of Optuna."""
    from optuna import distributions as kinds

    found: dict[str, Any] = {}
    for field, axis in space.items():
        if isinstance(axis, Choice):
            found[field] = kinds.CategoricalDistribution(axis.choices)
        elif isinstance(axis.low, int):
            found[field] = kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        else:
            found[field] = kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def overrides(values: Mapping[str, Any]) -> list[str]:
    """The arguments that set fields to values; repr() keeps every bit of a number."""
    texts = {field: v if isinstance(v, str) else repr(v) for field, v in values.items()}
    return [f"{config_files.PREFIX}{field}={text}" for field, text in texts.items()]


def corners(space: Space) -> list[dict[str, Any]]:
    """Points that between them have every extreme value: a config that takes them takes all."""
    most = max(len(axis.extremes()) for axis in space.values())
    return [
        {field: axis.extremes()[i % len(axis.extremes())] for field, axis in space.items()}
        for i in range(most)
    ]


def finite(loss: Any) -> bool:
    """Whether a loss is a number."""
    return isinstance(loss, float | int) and math.isfinite(loss)
