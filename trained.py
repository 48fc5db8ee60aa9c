"""A trained model from its run directory, as its final scores saw it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.traverse_util import unflatten_dict

import data
import models
import published
import tasks
from errors import ConfigError, DataError
from models import join, pretrained
from registry import shown
from training import checkpoint_reader, compilation, distributed, final_params, schema
from training.manifest import Damaged, Manifest
from training.run_directory import CONFIG, RunDirectory
from training.trainer import Trainer
from training.witness import console
from trees import named_leaves

TOKEN_PREDICTORS = ("seq2seq", "language_model", "encoder")  # kinds with a loss of each token
CACHE = Path(__file__).resolve().parent / ".cache"


def cache_of(settings: Mapping[str, Any]) -> str:
    """Where a run keeps prepared data and compiled programs, whatever the working directory."""
    return settings["data_dir"] or str(CACHE)


def source_of(settings: Mapping[str, Any]) -> data.Source:
    """The texts that a run was trained on."""
    return data.build_source(settings["task"]["source"], cache_of(settings))


class TrainedRun(NamedTuple):
    """What a run directory holds of a trained model.

    Attributes:
        steps: of the checkpoints that it is made of.
        data_digest: of the data that it was trained on, "" where the checkpoint has none.
    """

    settings: dict[str, Any]
    steps: list[int]
    model: nn.Module
    variables: dict[str, Any]
    tokenizer: data.Tokenizer
    data_digest: str


def load_run(
    workdir: str | Path,
    kinds: str | Sequence[str] | None,
    step: int | None = None,
    field: str = "--workdir",
) -> TrainedRun:
    """Reads the model of a run; changes nothing in its directory.

    Args:
        kinds: of models, one of which the caller needs, such as "seq2seq"; None for any.
        step: take the parameters of this checkpoint; None for those of the final scores.
        field: where the run was named, for messages.

    Raises:
        ConfigError: it is no run directory, or one of another kind, or has no such checkpoint.
        DataError, StorageError: one of its files is damaged.
    """
    run = RunDirectory(workdir)
    config = run.read_config()
    if config is None:
        raise ConfigError(f"{field} {run.path} is not a run directory (it has no {CONFIG}).")
    try:
        settings = schema.validate(config, models=models.MODELS, tasks=tasks.TASKS)
    except (ConfigError, TypeError) as error:
        raise DataError(f"{run / CONFIG}: {error}") from error
    check_kind(settings["model"]["name"], kinds, f"{field} {run.path}")
    compilation.keep_compiled(cache_of(settings))
    tokenizer = data.load_tokenizer(run / "tokenizer")
    model = models.build(settings["model"], tokenizer.vocab_size)
    steps, params = read_params(run.checkpoints, settings, step)
    check_shapes(model, params, run.checkpoints / str(steps[-1]))
    saved = Manifest.read(run.checkpoints / str(steps[-1])).fingerprint
    return TrainedRun(settings, steps, model, {"params": params}, tokenizer, saved.get("data", ""))


def load_task(run: TrainedRun) -> tasks.Task:
    """What the run was trained on, with its batches.

    Raises:
        DataError: the data or the tokenizer are others than those of the run.
    """
    settings = run.settings
    task = tasks.build(settings["task"], settings["seed"], cache_of(settings))
    found = task.fingerprint()
    if found["tokenizer"] != run.tokenizer.fingerprint():
        raise DataError("The data now give another tokenizer than the run was trained with.")
    if run.data_digest and found["data"] != run.data_digest:
        raise DataError("The data are others now than when the run was trained.")
    return task


def check_kind(name: str, kinds: str | Sequence[str] | None, where: str) -> None:
    """Refuses a model of another kind than is needed; raises ConfigError."""
    kind, wanted = models.MODELS[name].kind, [kinds] if isinstance(kinds, str) else kinds
    if wanted is not None and kind not in wanted:
        raise ConfigError(
            f"{where} holds {name}, a model of kind {kind}; this needs kind {' or '.join(wanted)}."
        )


def load_parts(
    settings: Mapping[str, Any], run: RunDirectory, begun: Sequence[int]
) -> tuple[dict[str, TrainedRun], dict[str, str]]:
    """The models that config.init_from names: of runs, or published.

    Args:
        begun: steps of the checkpoints of the run; with one, it needs those models no more.

    Returns:
        (models by part of the model, none for a run that has begun; digests of the published
        ones by field, which checkpoints keep).

    Raises:
        ConfigError: as of load_run; or config.model is not what was published, or the run began
            with other published weights.
        DataError, StorageError: a file is damaged or missing.
    """
    digests = _published_digests(settings, run, begun)
    return {} if begun else _read_parts(settings), digests


def _read_parts(settings: Mapping[str, Any]) -> dict[str, TrainedRun]:
    """The models by part of the model."""
    parts = {}
    for part, path in _named_parts(settings):
        field, kinds = f"config.init_from.{part}", None if part in join.WHOLE else "language_model"
        if not published.is_published(path):
            parts[part] = load_run(path, kinds, field=field)
            continue
        found = published.read_folder(path)
        check_kind(found.block["name"], kinds, f"{field} {path}")
        if part in join.WHOLE:
            _check_options(settings["model"], part, found.block, path)
        params = unflatten_dict(found.weights.params, sep="/")
        parts[part] = TrainedRun(
            {"model": found.block}, [], found.model, {"params": params}, found.tokenizer, ""
        )
    return parts


def _named_parts(settings: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """The parts of the model that config.init_from begins with something, and with what."""
    named = {part: settings["init_from"][part] for part in join.PARTS}
    return [(part, Path(path).expanduser()) for part, path in named.items() if path]


def _check_options(
    model: Mapping[str, Any], part: str, block: Mapping[str, Any], path: Path
) -> None:
    """Refuses a model that would compute something else than the published one, though its
    parameters may have the same shapes; raises ConfigError."""
    field = {"model": "config.model", "inner": "config.model.inner"}[part]
    mine = model if part == "model" else model.get("inner", model)
    if name := pretrained.difference(block, mine):
        raise ConfigError(
            f"{field}.{name} is {shown(mine.get(name))}, but the weights in {path} were published "
            f"with {shown(block.get(name))}. Set it to that."
        )


def _published_digests(
    settings: Mapping[str, Any], run: RunDirectory, begun: Sequence[int]
) -> dict[str, str]:
    """Digests of the published weights that a run begins with; those that are gone by now are
    as its checkpoints say."""
    saved = _saved_fingerprint(run, begun)
    found = {}
    for part, path in _named_parts(settings):
        field = f"init_from.{part}"
        if published.is_published(path):
            found[field] = published.digest(path)
        elif field in saved:
            found[field] = saved[field]
        if saved and found.get(field) != saved.get(field):
            raise ConfigError(
                f"config.{field}: the weights in {path} are others than those that this run began "
                "with. Put those back, or choose another --workdir."
            )
    if _named_parts(settings):
        distributed.check_same(found)
    return found


def _saved_fingerprint(run: RunDirectory, steps: Sequence[int]) -> Mapping[str, str]:
    """What the newest checkpoint says that it was made of, but for those with no whole record."""
    for step in reversed(steps):
        try:
            return Manifest.read(run.checkpoints / str(step)).fingerprint
        except Damaged:
            continue
    return {}


def changes_since_start(settings: dict[str, Any], run: RunDirectory) -> list[schema.Change]:
    """What this command changes of the config with which the run was started.

    Raises:
        ConfigError: something that decides what the run has learned so far.
    """
    started = _started_with(run)
    if started is None:
        return []
    may_change = tasks.TASKS[settings["task"]["name"]].may_change
    return schema.compare_for_resume(started, schema.to_json(settings), may_change)


def check_same_experiment(settings: dict[str, Any], run: RunDirectory) -> None:
    """Refuses a run that was started with another config than this one, but for what does not
    reach its result; raises ConfigError, naming the run and the first field."""
    started = _started_with(run)
    if started is None:
        return
    found = schema.differences(started, schema.to_json(settings))
    samples = "config.task.num_samples"  # to look at; no score sees them
    changes = [*found[schema.MUST_MATCH], *found[schema.MAY_CHANGE]]
    for change in (change for change in changes if change.path != samples):
        raise ConfigError(
            f"{run.path} was trained with {change.path} {change.old!r}, not {change.new!r}. Set "
            "it back, or choose another --out."
        )


def _started_with(run: RunDirectory) -> dict[str, Any] | None:
    """The config of a run, with options that are younger than it filled in; None of no run."""
    started = run.read_config() if run.exists else None
    if started is None:
        return None
    return schema.to_json(schema.validate(started, models=models.MODELS, tasks=tasks.TASKS))


def begin_with(trainer: Trainer, run: RunDirectory, parts: Mapping[str, Any]) -> None:
    """Fills fresh parameters from those of trained models, and says how.

    Raises:
        ConfigError: they do not fit.
    """
    wanted = trainer.settings["init_from"]
    found = join.match(trainer.shapes, parts, wanted["allow"])
    trainer.replace_params(join.fill(distributed.local(trainer.state.params), parts, found))
    print(found.summary(), file=console() or sys.stderr)
    names = {key: value for key, value in found._asdict().items() if key != "moves"}
    run.journal("init_from", runs=wanted, **names)


def check_tokenizers(parts: Mapping[str, TrainedRun], tokenizer: data.Tokenizer) -> None:
    """Refuses models that have other words than the run, which may have more ids that are no
    words; raises ConfigError."""
    for part, found in parts.items():
        wider = found.tokenizer.reserve(tokenizer.reserved)
        if wider.fingerprint() != tokenizer.fingerprint():
            raise ConfigError(
                f"config.init_from.{part} was trained with another tokenizer; train it with "
                "config.task.source and config.task.tokenizer of this run, or read its tokenizer: "
                "--config.task.tokenizer=\"{'name': 'saved', 'path': 'RUN/tokenizer'}\"."
            )


def read_params(
    folder: Path, settings: dict[str, Any], step: int | None = None
) -> tuple[list[int], Any]:
    """The steps and the mean of the checkpoints that the config chooses, or one step's."""
    what = final_params.kind(settings)
    found, params, meta = checkpoint_reader.load(folder, step, what)
    good = checkpoint_reader.good_steps(folder)
    steps = final_params.chosen_steps(settings, good, meta["best"]["step"])
    if step is not None or not steps:
        return [found], params
    return steps, final_params.mean_of(folder, steps, what)


def check_shapes(model: nn.Module, params: Any, path: Path) -> None:
    """Refuses parameters that are not those of the model; raises DataError."""
    expected = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    wanted, got = (
        {name: leaf.shape for name, leaf in named_leaves(tree).items()}
        for tree in (expected, params)
    )
    for name in sorted(wanted.keys() | got.keys()):
        if wanted.get(name) != got.get(name):
            raise DataError(
                f"{path} does not fit {CONFIG} and the tokenizer: parameter {name} has shape "
                f"{got.get(name)}, the model needs {wanted.get(name)}."
            )
