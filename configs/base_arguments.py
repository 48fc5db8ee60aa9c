"""The arguments of a config: the text after the colon of --config."""

import math
from types import SimpleNamespace
from typing import Any

from errors import ConfigError
from registry import unknown


def parse(arg: str, **defaults: Any) -> SimpleNamespace:
    """Reads the text after the colon of --config: "model=lstm-small,seed=2,smoke".

    Args:
        arg: NAME=VALUE pairs divided by commas; a word alone means NAME=true.
        defaults: all names with the values they have when left out; a value given must
            have the type of its default.

    Raises:
        ConfigError: an unknown name, one given twice, or a value of another type.
    """
    values, given = dict(defaults), set()
    for part in arg.split(",") if arg.strip() else ():
        name, equals, text = part.partition("=")
        name = name.strip()
        if name not in defaults:
            raise ConfigError(unknown("config argument", name, defaults))
        if name in given:
            raise ConfigError(f"Config argument {name} is given twice.")
        given.add(name)
        is_flag = isinstance(defaults[name], bool)
        values[name] = True if is_flag and not equals else _value(name, text, defaults[name])
    return SimpleNamespace(**values)


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _value(name: str, text: str, default: Any) -> Any:
    """A text as the type of the default."""
    kind = type(default)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        if text.strip() and (kind is not float or math.isfinite(value)):
            return value
    except (KeyError, ValueError):
        pass
    raise ConfigError(f"Config argument {name} must be {KINDS[kind]} ({name}=...), got {text!r}.")
