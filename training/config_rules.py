"""Rules over several fields of a config."""

from typing import Any

from errors import ConfigError
from training import axis_rules
from training.profile import steps_of


def check_together(settings: dict[str, Any]) -> None:
    """Refuses fields that do not go together; raises ConfigError, naming them."""
    steps_of(settings["profile"])
    averaged, kept = settings["average_checkpoints"], settings["keep_checkpoints"]
    if averaged > kept:
        raise ConfigError(
            f"config.average_checkpoints ({averaged}) must be at most config.keep_checkpoints "
            f"({kept})."
        )
    warmup, num_steps = settings["optimizer"]["schedule"]["warmup_steps"], settings["num_steps"]
    if warmup > num_steps:
        raise ConfigError(
            f"config.optimizer.schedule.warmup_steps ({warmup}) must be at most "
            f"config.num_steps ({num_steps})."
        )
    both_ways = (
        bool(_option(settings["model"], "bidirectional_prefix")),
        bool(settings["task"].get("bidirectional")),
    )
    if both_ways[0] != both_ways[1]:
        raise ConfigError(
            f"config.model.bidirectional_prefix ({both_ways[0]}) and config.task.bidirectional "
            f"({both_ways[1]}) must be the same: the first is an option of model transformer_lm, "
            "the second of task prefix_language_modelling."
        )
    _check_parallel(settings)


def _check_parallel(settings: dict[str, Any]) -> None:
    """What each of the two strategies can do, and with which models."""
    strategy, rules = settings["parallel"]["strategy"], settings["parallel"]["rules"]
    if strategy == "pmap" and rules != axis_rules.complete({}):
        raise ConfigError(
            "config.parallel.rules needs config.parallel.strategy 'mesh', got 'pmap'."
        )
    offload = settings["parallel"]["offload"]
    if strategy == "pmap" and offload != "none":
        raise ConfigError(
            f"config.parallel.offload {offload!r} needs config.parallel.strategy 'mesh', got "
            "'pmap'."
        )
    chunk = _option(settings["model"], "remat_chunk")
    if strategy == "mesh" and chunk:
        raise ConfigError(
            f"config.model.remat_chunk ({chunk}) needs config.parallel.strategy 'pmap', got "
            "'mesh': XLA's partitioner makes its gradients wrong on some meshes."
        )
    mesh, name = settings["parallel"]["mesh"], settings["model"]["name"]
    if strategy == "mesh" and name == "convolutional_seq2seq" and 1 not in mesh:
        raise ConfigError(
            f"config.parallel.mesh {tuple(mesh)} spreads {name} over three axes, where XLA's "
            "partitioner makes its gradients wrong: leave one of them 1."
        )
    shards, devices = settings["parallel"]["canonical_shards"], settings["parallel"]["num_devices"]
    if shards and settings["parallel"]["strategy"] != "pmap":
        raise ConfigError(
            f"config.parallel.canonical_shards ({shards}) needs config.parallel.strategy 'pmap', "
            f"got {settings['parallel']['strategy']!r}."
        )
    if shards and settings["accumulate"] > 1:
        raise ConfigError(
            f"config.parallel.canonical_shards ({shards}) needs config.accumulate 1, got "
            f"{settings['accumulate']}: the shards of a device are its micro-batches."
        )
    if shards and devices and shards % devices:
        raise ConfigError(
            f"config.parallel.canonical_shards ({shards}) must be a multiple of "
            f"config.parallel.num_devices ({devices})."
        )


def _option(block: Any, name: str) -> Any:
    """The value of an option of a model or of the model within it; None where neither has it."""
    if not isinstance(block, dict):
        return None
    return block.get(name) or _option(block.get("inner"), name)
