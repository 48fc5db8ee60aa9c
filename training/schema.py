"""What a config may hold, and what of it a resumed run may have otherwise.

The fields of the tree stand here; the options of a named block are those of its class.
"""

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from ml_collections import ConfigDict

import registry
from errors import ConfigError
from registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range, Rate
from training import axis_rules
from training.clipping import CLIPPERS
from training.config_rules import check_together
from training.optimizer import OPTIMIZERS, SCHEDULES


class Resume(enum.Enum):
    """What a resumed run may do with a field."""

    MUST_MATCH = "another value is another experiment"
    MAY_CHANGE = "another value is recorded in the journal"
    RUNTIME = "does not reach the result"


Block = Mapping[str, Any]
MAX_INT32 = 2**31 - 1
MUST_MATCH, MAY_CHANGE, RUNTIME = Resume.MUST_MATCH, Resume.MAY_CHANGE, Resume.RUNTIME


@dataclass(frozen=True)
class Optimizer:
    """Fields that all optimizers share; the others are those of OPTIMIZERS[name]."""

    learning_rate: Annotated[PositiveFloat, MAY_CHANGE]
    clip_norm: Annotated[NonNegativeFloat, MUST_MATCH]
    clip: Annotated[Block, MUST_MATCH]
    layer_decay: Annotated[float, Range(0, 1, exclusive_min=True), MUST_MATCH]
    schedule: Annotated[Block, MAY_CHANGE]


@dataclass(frozen=True)
class Parallel:
    """On what devices; only canonical_shards changes what is computed."""

    strategy: Annotated[Literal["pmap", "mesh"], RUNTIME]
    num_devices: Annotated[NonNegativeInt, RUNTIME]
    mesh: Annotated[tuple[NonNegativeInt, PositiveInt, PositiveInt], RUNTIME]
    canonical_shards: Annotated[NonNegativeInt, MUST_MATCH]
    rules: Annotated[Block, RUNTIME]  # options of training/axis_rules.py
    offload: Annotated[Literal["none", "moments"], RUNTIME]  # what the host keeps between steps


@dataclass(frozen=True)
class InitFrom:
    """Runs, or folders of published weights, "" for none; see models/join.py."""

    encoder: Annotated[str, MUST_MATCH]
    decoder: Annotated[str, MUST_MATCH]
    inner: Annotated[str, MUST_MATCH]
    model: Annotated[str, MUST_MATCH]
    allow: Annotated[tuple[str, ...], MAY_CHANGE]  # of no use once the run has begun


@dataclass(frozen=True)
class Config:
    """The whole tree. Defaults stand in configs/base.py; a default here is what runs had that
    are older than the field."""

    seed: Annotated[int, Range(0, MAX_INT32), MUST_MATCH]
    num_steps: Annotated[int, Range(1, MAX_INT32), MAY_CHANGE]
    data_dir: Annotated[str, RUNTIME]
    task: Annotated[Block, MUST_MATCH]
    model: Annotated[Block, MUST_MATCH]
    optimizer: Annotated[Block, MUST_MATCH, Optimizer]
    init_from: Annotated[Block, MUST_MATCH, InitFrom]
    accumulate: Annotated[PositiveInt, MUST_MATCH]
    ema_decay: Annotated[Rate, MUST_MATCH]
    average_checkpoints: Annotated[NonNegativeInt, MAY_CHANGE]
    early_stopping_patience: Annotated[NonNegativeInt, MAY_CHANGE]
    max_skipped_steps: Annotated[PositiveInt, MAY_CHANGE]
    log_every: Annotated[PositiveInt, RUNTIME]
    eval_every: Annotated[PositiveInt, MAY_CHANGE]
    save_every: Annotated[PositiveInt, MAY_CHANGE]
    keep_checkpoints: Annotated[int, Range(2), MAY_CHANGE]
    final_split: Annotated[Literal["train", "validation", "test"], MAY_CHANGE]
    parallel: Annotated[Block, RUNTIME, Parallel]
    diagnose_every: Annotated[NonNegativeInt, MAY_CHANGE] = 0
    freeze: Annotated[tuple[str, ...], MUST_MATCH] = ()
    profile: Annotated[str, RUNTIME] = ""


# The same for a block: no parts from elsewhere.
OLDER = {"init_from": {"encoder": "", "decoder": "", "inner": "", "model": "", "allow": ()}}


class Change(NamedTuple):
    """A field that a resumed run has otherwise than before; MISSING where it was not."""

    path: str
    old: Any
    new: Any


MISSING = "(not there)"


def validate(config: Any, *, models: Mapping[str, Any], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """The config as a plain dict, checked, with the defaults of all options filled in.

    Args:
        config: a ConfigDict or a mapping.
        models, tasks: classes by name, as in models.MODELS and tasks.TASKS.

    Raises:
        ConfigError: on the first field that is wrong, naming it.
    """
    plain = OLDER | to_json(config)
    settings = registry.check_options("config", Config, plain, "config")
    settings = registry.with_defaults(Config, settings)
    settings = {field.name: settings[field.name] for field in dataclasses.fields(Config)}
    task = settings["task"] = _check_task(tasks, settings["task"])
    settings["model"] = _check_model(models, settings["model"], "config.model")
    settings["optimizer"] = _check_optimizer(settings["optimizer"])
    parallel = {"rules": {}, "offload": "none", **settings["parallel"]}  # older runs have none
    parallel = registry.check_options("parallel", Parallel, parallel, "config.parallel")
    settings["parallel"] = parallel | {"rules": axis_rules.complete(parallel["rules"])}
    parts = {"inner": "", "model": "", **settings["init_from"]}
    settings["init_from"] = registry.check_options("init_from", InitFrom, parts, "config.init_from")
    wanted, model = tasks[task["name"]].model_kind, settings["model"]["name"]
    wanted = (wanted,) if isinstance(wanted, str) else wanted
    if models[model].kind not in wanted:
        raise ConfigError(
            f"Task {task['name']} needs a {' or a '.join(wanted)}, but model {model} is a "
            f"{models[model].kind}. Choose another config.model.name."
        )
    check_together(settings)
    return settings


def _named(
    what: str, table: Mapping[str, Any], block: Any, path: str, skip: Iterable[str] = ()
) -> dict[str, Any]:
    """A named block with the options of its class, checked and completed."""
    target = registry.choose(what, table, block, path)
    given = {key: value for key, value in block.items() if key != "name"}
    label = f"{what} {block['name']!r}"
    checked = registry.check_options(label, target, given, path, skip)
    return {"name": block["name"], **registry.with_defaults(target, checked, skip)}


def _check_model(models: Mapping[str, Any], block: Any, path: str) -> dict[str, Any]:
    """The block of a model with the blocks of the models in it."""
    parts = getattr(registry.choose("model", models, block, path), "blocks", ())
    own = {key: value for key, value in block.items() if key not in parts}
    checked = _named("model", models, own, path, ["vocab_size", *parts])
    for name in parts:
        checked[name] = _check_model(models, block.get(name), f"{path}.{name}")
    return checked


# Arguments of the named things' classes that the program gives, and not a config.
GIVEN = {"task": ["seed", "data_dir"], "source": ["cache_dir"]}


def _check_task(tasks: Mapping[str, Any], block: Any) -> dict[str, Any]:
    checked = _named("task", tasks, block, "config.task", GIVEN["task"])
    for name, table in tasks[checked["name"]].blocks.items():
        path, skip = f"config.task.{name}", GIVEN.get(name, [])
        checked[name] = _named(name, table, checked[name], path, skip)
    return checked


def _check_optimizer(block: Any) -> dict[str, Any]:
    path, shared = "config.optimizer", [field.name for field in dataclasses.fields(Optimizer)]
    target = registry.choose("optimizer", OPTIMIZERS, block, path)
    own = [name for name in registry.options(target) if name != "schedule"]
    for name in block:
        if name not in ("name", *shared, *own):
            what = f"option of optimizer {block['name']!r}"
            raise ConfigError(f"{path}: {registry.unknown(what, name, [*shared, *own])}")
    # What runs had that are older than the fields.
    general: dict[str, Any] = {"clip": {"name": "none"}, "layer_decay": 1.0}
    general |= {key: value for key, value in block.items() if key in shared}
    general = registry.check_options("optimizer", Optimizer, general, path)
    own_block = {key: value for key, value in block.items() if key not in shared}
    checked = _named("optimizer", OPTIMIZERS, own_block, path, ["schedule"]) | general
    checked["clip"] = _named("clip", CLIPPERS, general["clip"], f"{path}.clip")
    checked["schedule"] = _named(
        "schedule",
        SCHEDULES,
        general["schedule"],
        f"{path}.schedule",
        ["learning_rate", "num_steps"],
    )
    return checked


def to_json(config: Any) -> dict[str, Any]:
    """The config in the types of JSON: dicts, lists, texts, numbers, booleans and None.

    Raises:
        ConfigError: a value is something else.
    """
    return _to_json(config, "config")


def _to_json(value: Any, path: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_to_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping | ConfigDict):  # which is no Mapping
        return {str(key): _to_json(item, f"{path}.{key}") for key, item in value.items()}
    raise ConfigError(f"{path} must be plain data, got a {type(value).__name__}.")


def resume_class(path: str, may_change: Iterable[str] = ()) -> Resume:
    """What a resumed run may do with a field.

    Args:
        path: such as "optimizer.learning_rate".
        may_change: options of the task that may change, such as "num_beams".
    """
    if any(path == f"task.{name}" for name in may_change):
        return MAY_CHANGE
    resume: Resume = MUST_MATCH
    fields: type | None = Config
    for name in path.split("."):
        known = registry.options(fields) if fields else {}
        if name not in known:
            # An option of a named block goes with the block; one beside fields is not free.
            return MUST_MATCH if fields else resume
        notes = known[name].annotation.__metadata__
        resume = next(note for note in notes if isinstance(note, Resume))
        fields = next((note for note in notes if isinstance(note, type)), None)
    return resume


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Iterable[str] = ()
) -> dict[Resume, list[Change]]:
    """Fields that differ, by what a resumed run may do with them.

    Args:
        old: the config with which the run was started; new: the one of this command.
        may_change: options of the task that may change; "source.path" is one of a block.
    """
    old_leaves, new_leaves = dict(_leaves(to_json(old))), dict(_leaves(to_json(new)))
    paths = [*new_leaves, *(path for path in old_leaves if path not in new_leaves)]
    changes: dict[Resume, list[Change]] = {resume: [] for resume in Resume}
    for path in paths:
        change = Change(
            f"config.{path}", old_leaves.get(path, MISSING), new_leaves.get(path, MISSING)
        )
        if change.old != change.new or isinstance(change.old, bool) != isinstance(change.new, bool):
            changes[resume_class(path, may_change)].append(change)
    return changes


def compare_for_resume(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: Iterable[str] = ()
) -> list[Change]:
    """Fields that differ and may, for the journal; those of class runtime are left out.

    Raises:
        ConfigError: a field differs that must not.
    """
    changes = differences(old, new, may_change)
    if changes[MUST_MATCH]:
        first, others = changes[MUST_MATCH][0], len(changes[MUST_MATCH]) - 1
        more = f" ({others} more field{'s' * (others > 1)} differ{'s' * (others == 1)})"
        raise ConfigError(
            f"{first.path} is {first.new!r}, but this run was started with {first.old!r}"
            f"{more if others else ''}. Set it back, or choose another --workdir."
        )
    return changes[MAY_CHANGE]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted paths and values; a list is one value, and so is an empty block."""
    for key in sorted(tree, key=lambda key: key != "name"):  # a name explains what follows
        if isinstance(tree[key], Mapping) and tree[key]:
            yield from _leaves(tree[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tree[key]
