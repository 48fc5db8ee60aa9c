"""Reads a config: a Python file with get_config(), or the JSON that a run keeps of its own."""

import ast
import inspect
import json
import re
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import registry
from errors import ConfigError, SeqlabError

REPOSITORY = Path(__file__).resolve().parents[1]
JOURNAL = "journal.jsonl"
WHOLE = re.compile(r"(?P<file>.+?\.(?:py|json))(?::(?P<argument>.*))?", re.DOTALL)
PREFIX = "--config."
OPEN = ("config.parallel.rules",)  # blocks whose options stand with their defaults elsewhere


def load_config(config: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a --config argument, with fields set by other arguments.

    Args:
        config: "FILE.py", "FILE.py:ARGUMENT" for get_config(ARGUMENT), or the config.json of
            a run. FILE is looked for here, then in the repository.
        overrides: "--config.optimizer.learning_rate=1e-3", or its two halves.

    Raises:
        ConfigError: no such file, a file that fails, or an override without its field. Values
            of options that the config leaves to their defaults are for schema.validate to judge.
        DataError: a file of a model that the config begins with is damaged or missing.
    """
    file, argument = _split(config)
    path = _find(file)
    if path.suffix == ".py":
        loaded = _run(path, argument or "")
    elif argument is None:
        loaded = _read(path)
    else:
        raise ConfigError(f"--config: {str(path)!r} takes no arguments, got {argument!r}.")
    for field, text in pairs(overrides):
        _set(loaded, field, text)
    return loaded


def load_sweep(config: str) -> list[str]:
    """A --config argument for each string of the sweep() of a config file.

    Args:
        config: "FILE.py", or "FILE.py:ARGUMENT" for an argument that all strings get.

    Raises:
        ConfigError: as of load_config, or the file has no sweep().
    """
    file, argument = _split(config)
    found = _call(_find(file), "sweep")
    if not (isinstance(found, list | tuple) and found and all(isinstance(s, str) for s in found)):
        raise ConfigError(f"--config: sweep() of {file!r} must return texts, not {_line(found)}.")
    return [f"{file}:{','.join(filter(None, (string, argument)))}" for string in found]


def load_search_space(config: str) -> Any:
    """What search_space() of the config file in a --config argument returns."""
    file, _ = _split(config)
    return _call(_find(file), "search_space")


def _split(config: str) -> tuple[str, str | None]:
    """The file and the argument of a --config."""
    match = WHOLE.fullmatch(config)
    if not match:
        raise ConfigError(f"--config must be FILE.py:ARGUMENTS or a config.json, got {config!r}.")
    return match["file"], match["argument"]


def _find(file: str) -> Path:
    """The path of a config file."""
    try:
        for path in (Path(file).expanduser(), REPOSITORY / file):
            if path.is_file():
                return path.absolute()
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, an unknown ~user
        pass
    known = [f"configs/{path.name}" for path in (REPOSITORY / "configs").glob("[!_]*.py")]
    known.remove("configs/base.py")
    raise ConfigError(registry.unknown("config file", file, known))


def _run(path: Path, argument: str) -> ConfigDict:
    """What get_config(argument) of a Python file returns."""
    found = _call(path, "get_config", argument)
    if not isinstance(found, ConfigDict):
        kind = type(found).__name__
        raise ConfigError(
            f"--config: get_config of {str(path)!r} must return a ConfigDict, not {kind}."
        )
    return found


def _call(path: Path, function_name: str, argument: str = "") -> Any:
    """What a function of a Python file returns, all references in it resolved."""
    if path.suffix != ".py":
        raise ConfigError(f"--config: {str(path)!r} is no Python file with {function_name}().")
    for folder in {*path.parents, *path.resolve().parents}:
        if (folder / JOURNAL).exists():
            raise ConfigError(
                f"--config: {str(path)!r} lies in a run directory, from which no program is run. "
                f"Use its config.json."
            )
    name = repr(str(path))
    try:
        module = types.ModuleType(path.stem)
        module.__file__ = str(path)
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        function = getattr(module, function_name, None)
        if not callable(function):
            raise ConfigError(f"--config: {name} has no function {function_name}().")
        takes_one = bool(inspect.signature(function).parameters)
        if argument and not takes_one:
            raise ConfigError(f"--config: {function_name} of {name} takes no argument.")
        found = function(argument) if takes_one else function()
        return found.copy_and_resolve_references() if isinstance(found, ConfigDict) else found
    except SeqlabError:
        raise
    except (Exception, SystemExit) as error:  # a config file may do anything
        raise ConfigError(
            f"--config: {name} fails: {type(error).__name__}: {_line(error)}"
        ) from error


def _read(path: Path) -> ConfigDict:
    """The ConfigDict of a JSON file."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ConfigError(f"--config: {str(path)!r} holds no config, but {_line(found)}.")
        return ConfigDict(found)
    except ConfigError:
        raise
    except Exception as error:  # not JSON, or names that no field can have
        raise ConfigError(f"--config: {str(path)!r} is no config: {_line(error)}") from error


def _line(what: Any) -> str:
    """The first line of a text, cut to a readable length."""
    return next(iter(str(what).splitlines()), "")[:200]


# What the known arguments of train.py are, beside fields.
KNOWN = ("--config", "--config.FIELD=VALUE", "--workdir", "--debug")


def pairs(overrides: Sequence[str], known: Sequence[str] = KNOWN) -> list[tuple[str, str]]:
    """(field, value) of each override.

    Args:
        known: arguments of the command, to name the nearest one.

    Raises:
        ConfigError: an argument that is no override, or one without its value.
    """
    found, rest = [], list(overrides)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.partition("=")
        if not name.startswith(PREFIX) or name == PREFIX:
            got = name if name.startswith("--") else argument
            raise ConfigError(registry.unknown("argument", got, known))
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{name} needs a value: {name}=VALUE.")
            text = rest.pop(0)
        found.append((name.removeprefix(PREFIX), text))
    return found


def _set(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field, such as "optimizer.learning_rate", to the value that a text means."""
    *parents, last = field.split(".")
    block, path = config, "config"
    for name in parents:
        block, path = _get(block, name, path), f"{path}.{name}"
        if not isinstance(block, ConfigDict):
            raise ConfigError(f"{path} has no fields, so there is no {path}.{last}.")
    # Options that a block leaves to their defaults may be set; the schema knows them.
    is_open = "name" in block or path in OPEN
    is_new_option = is_open and last not in block and last.isidentifier()
    old = None if is_new_option else _get(block, last, path)
    path = f"{path}.{last}"
    value = text if isinstance(old, str) else _literal(text)
    if isinstance(old, ConfigDict) and not isinstance(value, dict):
        known = ", ".join(sorted(old))
        raise ConfigError(f"{path} is a block: set one of its fields ({known}), got {text!r}.")
    try:
        with block.ignore_type():  # the schema knows the types: a 0 here may be a rate
            block[last] = value
    except Exception as error:  # ml_collections' own rules on names and types
        raise ConfigError(f"{path} cannot be {text!r}: {_line(error)}") from error


def _get(block: ConfigDict, name: str, path: str) -> Any:
    if name not in block:
        raise ConfigError(registry.unknown(f"field of {path}", name, list(block)))
    return block[name]


def _literal(text: str) -> Any:
    """The value that a text means: a number, a list, true, false, none, a block, or itself."""
    words = {"true": True, "false": False, "none": None}
    try:
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
