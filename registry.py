"""Builds a named thing from a config block, and says what is wrong with a block.

The options of a thing are the parameters of its class or function: names, types and
ranges are read off the signature, so there is no second list to keep.
"""

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for Annotated[...]; both are inclusive unless said otherwise."""

    min: float | None = None
    max: float | None = None
    exclusive_max: bool = False
    exclusive_min: bool = False

    def __contains__(self, value: float) -> bool:
        above = (
            self.min is None or value > self.min or (value == self.min and not self.exclusive_min)
        )
        below = (
            self.max is None or value < self.max or (value == self.max and not self.exclusive_max)
        )
        return above and below

    def __str__(self) -> str:
        parts = []
        if self.min is not None:
            parts.append(f"{'above' if self.exclusive_min else 'of at least'} {self.min}")
        if self.max is not None:
            parts.append(f"{'below' if self.exclusive_max else 'of at most'} {self.max}")
        return " and ".join(parts)


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, exclusive_min=True)]
NonNegativeFloat = Annotated[float, Range(0)]
Rate = Annotated[float, Range(0, 1, exclusive_max=True)]

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def shown(value: Any) -> str:
    """A value as one short line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def unknown(what: str, got: Any, known: Iterable[Any]) -> str:
    """One sentence: what was got, the nearest right word, and all choices."""
    known = sorted(map(str, known))
    # Whoever writes LSTM or lstm_small means a word in other letters, not a stranger.
    plain = {word.lower().replace("-", "_"): word for word in known}
    close = difflib.get_close_matches(str(got)[:100].lower().replace("-", "_"), plain, n=1)
    hint = f" Did you mean {plain[close[0]]!r}?" if close else ""
    return f"Unknown {what}: {shown(got)}.{hint} Known: {', '.join(known) or '(none)'}."


def options(target: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function with their resolved annotations."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(target).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        p.name: p.replace(annotation=hints.get(p.name, Any))
        for p in parameters
        if p.kind not in kinds and p.name not in ("parent", "name")  # Linen's own fields
    }


def check_options(
    what: str, target: Callable, given: Mapping[str, Any], path: str, skip: Iterable[str] = ()
) -> dict[str, Any]:
    """The options in `given`, checked against the signature of target and converted.

    Args:
        what: what messages call it, such as "model 'recurrent_lm'".
        path: of the block, such as "config.model".
        skip: parameters that are no options, because the caller supplies them.

    Raises:
        ConfigError: on an unknown or missing option, a wrong type or a value out of range.
    """
    skipped = set(skip)
    known = {name: p for name, p in options(target).items() if name not in skipped}
    for name in given:
        if name not in known:
            raise ConfigError(f"{path}: {unknown(f'option of {what}', name, known)}")
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in given:
            raise ConfigError(f"{path}.{name} is missing: {what} has no default for it.")
    return {k: check_value(v, known[k].annotation, f"{path}.{k}") for k, v in given.items()}


def with_defaults(
    target: Callable, given: Mapping[str, Any], skip: Iterable[str] = ()
) -> dict[str, Any]:
    """`given` and the options of target that it leaves out, in the order of the signature."""
    defaults = {
        name: p.default
        for name, p in options(target).items()
        if name not in set(skip) and p.default is not inspect.Parameter.empty
    }
    return defaults | dict(given)


def check_value(value: Any, expected: Any, path: str) -> Any:
    """The value as the type `expected`, or a ConfigError that names the field `path`."""
    bounds: list[Range] = []
    if typing.get_origin(expected) is Annotated:
        expected, *rest = typing.get_args(expected)
        bounds = [bound for bound in rest if isinstance(bound, Range)]
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise ConfigError(f"{path}: {unknown('value', value, arguments)}")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        rest = next(a for a in arguments if a is not type(None))
        return check_value(value, Annotated[(rest, *bounds)] if bounds else rest, path)
    if expected is tuple or origin is tuple:
        return _check_tuple(value, arguments, path)
    expected = origin or expected
    fits, converted = _convert(value, expected)
    if fits and all(converted in bound for bound in bounds):
        return converted
    words = [_word(expected), *map(str, bounds)]
    raise ConfigError(f"{path} must be {' '.join(words)}, got {shown(value)}.")


def _word(expected: Any) -> str:
    known = WORDS.get(expected)
    return known or ("a block" if issubclass(expected, Mapping) else expected.__name__)


def _convert(value: Any, expected: Any) -> tuple[bool, Any]:
    """Whether the value is of a plain type, and the value as that type."""
    if expected is Any or not isinstance(expected, type):
        return True, value
    if isinstance(value, bool):  # Python counts it among the integers
        return expected is bool, value
    if expected is float and isinstance(value, int | float):
        finite = abs(value) <= sys.float_info.max  # nor is NaN
        return finite, float(value) if finite else value
    if isinstance(value, str) and "\0" in value:  # no path and no name holds one
        return False, value
    return isinstance(value, expected), value


def _check_tuple(value: Any, arguments: tuple, path: str) -> tuple:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{path} must be a list, got {shown(value)}.")
    if arguments and arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    elif not arguments:
        arguments = (Any,) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(f"{path} must have {len(arguments)} values, got {shown(value)}.")
    pairs = zip(value, arguments, strict=True)
    return tuple(check_value(v, a, f"{path}[{i}]") for i, (v, a) in enumerate(pairs))


def choose(what: str, table: Mapping[str, Any], block: Any, path: str) -> Any:
    """The entry of a table that a block names."""
    if not isinstance(block, Mapping):
        raise ConfigError(f"{path} must be a block with a name, got {shown(block)}.")
    if "name" not in block:
        raise ConfigError(f"{path}.name is missing. Known: {', '.join(sorted(table))}.")
    name = block["name"]
    if not isinstance(name, str) or name not in table:
        raise ConfigError(f"{path}.name: {unknown(what, name, table)}")
    return table[name]


def build(
    what: str, table: Mapping[str, Any], block: Mapping[str, Any], path: str, **given: Any
) -> Any:
    """Calls table[block["name"]] with the other fields of the block as options.

    `given` are arguments of the caller, which a block may not set.
    """
    target = choose(what, table, block, path)
    rest = {k: v for k, v in block.items() if k != "name"}
    label = f"{what} {block['name']!r}"
    return target(**given, **check_options(label, target, rest, path, skip=given))
