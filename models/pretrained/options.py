"""config.json of theirs to a model block of ours, and back; what has no counterpart is refused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from errors import ConfigError, DataError
from registry import shown

MISSING = object()
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "swish"}
SAME_ACTIVATIONS = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new"}  # other names of theirs


class Field(NamedTuple):
    """One field of theirs that is one option of ours.

    Attributes:
        theirs: its name; "" where ours always follows from the others, by `default`.
        default: where config.json has none: a value, or a function of the config; without it
            the field must be there.
        values: their values and ours, where they are not the same.
        shift: what ours is more than theirs.
    """

    theirs: str
    ours: str
    default: Any = MISSING
    values: Mapping[Any, Any] | None = None
    shift: int = 0


class Options(NamedTuple):
    """The options of a family.

    Attributes:
        fixed: of our block, in every model of the family.
        fields: that differ from model to model.
        required: fields of theirs with the value that they must have if they are there.
        equal: fields of theirs that must be equal to another, which is in `fields`.
        written: fields of theirs that are written beside these.
    """

    fixed: Mapping[str, Any]
    fields: Sequence[Field]
    required: Mapping[str, Any] = {}
    equal: Mapping[str, str] = {}
    written: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda block: {}


def read(options: Options, config: Mapping[str, Any]) -> dict[str, Any]:
    """The model block of a config.json, without the options that have their defaults.

    Raises:
        DataError: a field is missing, or our models cannot do what it says.
    """
    for name, needed in options.required.items():
        if name in config and config[name] not in (needed, None):
            raise _unlike(name, config[name], f"only {shown(needed)} has a counterpart here")
    for name, other in options.equal.items():
        if name in config and config[name] not in (config.get(other), None):
            raise _unlike(name, config[name], f"it must be equal to {other}")
    block = dict(options.fixed)
    for field in options.fields:
        block[field.ours] = _value(field, config)
    return block


def _value(field: Field, config: Mapping[str, Any]) -> Any:
    value = config.get(field.theirs)
    if value is None:
        if field.default is MISSING:
            raise DataError(f"config.json: {field.theirs} is missing.")
        value = field.default(config) if callable(field.default) else field.default
    if field.shift:
        if type(value) is not int:
            raise _unlike(field.theirs, value, "it must be a whole number")
        return value + field.shift
    if field.values is None:
        return value
    if isinstance(value, str):
        value = SAME_ACTIVATIONS.get(value, value)
    if not isinstance(value, str | bool) or value not in field.values:
        known = ", ".join(map(shown, field.values))
        raise _unlike(field.theirs, value, f"those with a counterpart here are {known}")
    return field.values[value]


def _unlike(name: str, value: Any, why: str) -> DataError:
    return DataError(f"config.json: {name} is {shown(value)}; {why}.")


def write(options: Options, block: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model block, which has all options.

    Raises:
        ConfigError: an option has a value that no field of theirs says.
    """
    config = {**options.required, **options.written(block)}
    for field in options.fields:
        if not field.theirs:
            continue
        value = block[field.ours]
        if field.values is not None:
            back = {ours: theirs for theirs, ours in field.values.items()}
            if value not in back:
                raise ConfigError(f"{field.ours} {shown(value)} has no counterpart")
            value = back[value]
        config[field.theirs] = value - field.shift if field.shift else value
    for name, other in options.equal.items():
        config[name] = config[other]
    return config
