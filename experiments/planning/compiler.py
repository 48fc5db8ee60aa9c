"""The very train step of a config, compiled for devices that are not here."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

import train
from errors import ConfigError
from experiments.planning.programs import Program, read_program
from experiments.planning.stand_in import StandIn
from models.layers import compiled_for
from training import planned
from training.offload import host_bytes
from training.run_directory import RunDirectory
from training.signals import StopFlag
from training.trainer import Trainer

TOO_LARGE = re.compile(
    r"(?:[Uu]sed |HLO temporaries \()([\d.]+)([KMGT])(?: of |\) exceeds available HBM \()"
    r"([\d.]+)([KMGT])(?: hbm|\))"
)
UNITS = {"K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


class Compiled(NamedTuple):
    """What the compiler says of one device. Bytes, FLOPs and seconds are those of a step.

    Attributes:
        arguments: the state and the batch; temporary: what comes and goes within the step;
            code: the program. Outputs take the place of arguments.
        memory: all of it.
        host: what the host keeps for the device: moments, activations.
        flops, bytes: loops count as often as they run. (XLA counts a body once; its bytes and
            optimal_seconds are scaled as the FLOPs of products.)
        seconds: of the cycles that a TPU's compiler expects each operation to take, without the
            messages between devices; 0 where it expects none.
        optimal_seconds: of XLA's cost analysis; 0 where it has none, or it is negative.
        program: the collectives and loops; None where its text cannot be read, and then loops
            are counted once.
        compile_seconds: what compiling took here.
    """

    arguments: float
    temporary: float
    code: float
    memory: float
    host: float
    flops: float
    bytes: float
    seconds: float
    optimal_seconds: float
    program: Program | None
    compile_seconds: float


class TooLarge(NamedTuple):
    """The compiler's answer to a program that does not fit: what it needs of what there is."""

    memory: float
    limit: float


def build(settings: Mapping[str, Any], given: StandIn, devices: Sequence[jax.Device]) -> Trainer:
    """The trainer of a run on devices that need not be here; nothing is run."""
    block = {**settings["parallel"], "num_devices": len(devices)}
    with planned.on_devices(devices):
        run, stop = RunDirectory("plan"), StopFlag()  # neither is used: it will not run
        return train.build_trainer({**settings, "parallel": block}, given.task, run, stop)


def compile_step(
    trainer: Trainer, batch: Mapping[str, Any], clock: float = 0.0
) -> Compiled | TooLarge:
    """Compiles a trainer's step for a batch of these shapes, on chips of a clock rate."""
    began = time.monotonic()
    with compiled_for(trainer.strategy.mesh.devices.flat[0].platform):
        lowered = trainer.lower(dict(batch))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if match := TOO_LARGE.search(str(error)):
            used, limit = (float(match[i]) * UNITS[match[i + 1]] for i in (1, 3))
            return TooLarge(used, limit)
        raise ConfigError(f"The compiler fails: {str(error).splitlines()[0]}") from error
    found = _read(compiled, clock, time.monotonic() - began)
    if found.host:
        return found
    # A CPU in the place of a GPU has one memory, and counts there what the host would keep.
    host = host_bytes(trainer.abstract)
    arguments, memory = found.arguments - host, found.memory - host
    return found._replace(arguments=arguments, memory=memory, host=host)


def _read(compiled: Any, clock: float, seconds: float) -> Compiled:
    sizes, program = compiled.memory_analysis(), _program(compiled)
    costs = compiled.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    again = program.flops / program.flops_once if program and program.flops_once else 1.0
    products = (program.flops, program.flops_once) if program else (0.0, 0.0)
    inputs = sizes.argument_size_in_bytes
    outputs = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    temporary, code = sizes.temp_size_in_bytes, sizes.generated_code_size_in_bytes
    return Compiled(
        arguments=inputs,
        temporary=temporary,
        code=code,
        memory=inputs + outputs + temporary + code,
        host=sizes.host_argument_size_in_bytes + sizes.host_temp_size_in_bytes,
        # What is left of XLA's count are the elementwise operations.
        flops=products[0] + max(0.0, costs.get("flops", 0.0) - products[1]) * again,
        bytes=costs.get("bytes accessed", 0.0) * again,
        seconds=program.cycles / clock if program and clock else 0.0,
        optimal_seconds=max(0.0, costs.get("optimal_seconds", 0.0)) * again,
        program=program,
        compile_seconds=seconds,
    )


def _program(compiled: Any) -> Program | None:
    """What the program's text says; None where this jaxlib cannot read what libtpu wrote."""
    try:
        return read_program(compiled.as_text())
    except jax.errors.JaxRuntimeError:
        return None
