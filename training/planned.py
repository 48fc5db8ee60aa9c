"""Steps of runs that are only planned: lowered for devices that are not here."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax

_planned: list[Sequence[jax.Device]] = []


@contextlib.contextmanager
def on_devices(devices: Sequence[jax.Device]) -> Iterator[None]:
    """What is built inside is for these devices, such as those of a TPU topology."""
    _planned.append(devices)
    try:
        yield
    finally:
        _planned.pop()


def devices() -> list[jax.Device]:
    """The devices to build for: those of the plan, else all that are here."""
    return list(_planned[-1]) if _planned else jax.devices()


@dataclass(frozen=True)
class Program:
    """A compiled step.

    Attributes:
        run: calls it.
        lower: the same program for shapes in place of arrays, as a jax.stages.Lowered.
    """

    run: Callable[..., Any]
    lower: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)
