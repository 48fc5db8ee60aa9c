"""One recurrent layer, forward and backward, against Flax and PyTorch on the CPU, float32.

  python -m benchmarks.recurrence

An LSTM reads 64 rows of 64 steps; the loss is the sum of its outputs, with gradients to its
inputs and to all its weights. tests/test_cells.py holds that PyTorch's layer and ours have
the same values and gradients. The other tables are the memory of our backward pass, and where
the time of a step goes: how much of it products must take, and how much their order costs.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, machine
from models.recurrent.layer import RecurrentLayer
from models.recurrent.options import CellOptions
from training import memory

TITLE = "Recurrence: one LSTM layer, forward and backward"
PARTS_TITLE = "Recurrence: where the time of our step goes"
MEMORY_TITLE = "Recurrence: memory of the backward pass"
ROWS, LENGTH = 64, 64
WIDTHS = (256, 512)
GOALS = {"Flax": 1.5, "PyTorch": 1.0}
LENGTHS = (256, 1024, 4096)
MEMORY_ROWS, MEMORY_WIDTH = 8, 128


def inputs(width: int, length: int = LENGTH, rows: int = ROWS) -> np.ndarray:
    """Random inputs, (length, rows, width)."""
    return np.random.default_rng(0).normal(size=(length, rows, width)).astype(np.float32)


def _gradients(outputs_of: Callable[[Any, Any], Any]) -> Any:
    return jax.jit(jax.grad(lambda params, x: outputs_of(params, x).sum(), (0, 1)))


def ours(width: int) -> Callable[[], Any]:
    """A training step of our layer."""
    layer, x_TBD = RecurrentLayer(width), inputs(width)
    params = nn.meta.unbox(layer.init(jax.random.key(0), x_TBD))
    step = _gradients(lambda params, x_TBD: layer.apply(params, x_TBD)[1])
    return lambda: jax.block_until_ready(step(params, x_TBD))


def flax(width: int) -> Callable[[], Any]:
    """The same of Flax's fastest cell."""
    layer, x_TBD = nn.RNN(nn.OptimizedLSTMCell(width), time_major=True), inputs(width)
    params = layer.init(jax.random.key(0), x_TBD)
    step = _gradients(layer.apply)
    return lambda: jax.block_until_ready(step(params, x_TBD))


def compare(width: int, rounds: int) -> list[harness.Row]:
    """A row for each peer."""
    with harness.Worker("recurrence", width=width, keep_freed_memory=True) as peer:
        sides: dict[str, Callable[[], object]] = {"ours": ours(width), "Flax": flax(width)}
        sides["PyTorch"] = peer
        timing = harness.alternate(sides, rounds)
    what = f"LSTM, B {ROWS}, T {LENGTH}, D = H = {width}"
    return [
        harness.compared(
            f"{what}, against {name}", timing, name, "ours", ROWS * LENGTH, "steps", goal
        )
        for name, goal in GOALS.items()
    ]


def parts(width: int) -> dict[str, Callable[[], Any]]:
    """Our step, its forward pass, and its products alone: the four that need not wait for a
    state, each as one, and the two that come one time step after another."""
    layer, x_TBD = RecurrentLayer(width), jnp.asarray(inputs(width))
    params = nn.meta.unbox(layer.init(jax.random.key(0), x_TBD))
    forward = jax.jit(lambda x_TBD: layer.apply(params, x_TBD)[1])
    weight_HG = jnp.asarray(np.random.default_rng(1).normal(size=(width, 4 * width)) / width)
    weight_HG = weight_HG.astype(jnp.float32)
    dz_TBG, h_TBH = jnp.tile(x_TBD, (1, 1, 4)), x_TBD / 2

    def one_after_another(weight_IO: Any, x_TBI: Any) -> Any:
        """A product a step whose input has in it the one before; only the sum comes back."""

        def body(h_BI: Any, x_BI: Any) -> tuple[Any, None]:
            return x_BI + 1e-3 * (h_BI @ weight_IO)[:, : h_BI.shape[1]], None

        return jax.lax.scan(body, jnp.zeros_like(x_TBI[0]), x_TBI)[0]

    def one_each(x_TBD: Any, h_TBH: Any, dz_TBG: Any) -> list[Any]:
        x_ND, h_NH, dz_NG = (a.reshape(-1, a.shape[-1]) for a in (x_TBD, h_TBH, dz_TBG))
        return [x_ND @ weight_HG, dz_NG @ weight_HG.T, x_ND.T @ dz_NG, h_NH.T @ dz_NG]

    def backward(dz_TBG: Any) -> Any:
        def body(dh_BH: Any, dz_BG: Any) -> tuple[Any, None]:
            return 1e-3 * ((dz_BG + jnp.tile(dh_BH, (1, 4))) @ weight_HG.T), None

        return jax.lax.scan(body, jnp.zeros_like(x_TBD[0]), dz_TBG)[0]

    def called(function: Callable, *arguments: Any) -> Callable[[], Any]:
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arguments))

    return {
        "step": ours(width),
        "forward pass": lambda: jax.block_until_ready(forward(x_TBD)),
        "recurrent products, forward": called(
            functools.partial(one_after_another, weight_HG), x_TBD
        ),
        "recurrent products, backward": called(backward, dz_TBG),
        "the four other products": called(one_each, x_TBD, h_TBH, dz_TBG),
    }


def parts_rows(rounds: int) -> list[harness.Row]:
    """Milliseconds of each part, and its share of the whole step."""
    found = []
    for width in WIDTHS:
        timing = harness.alternate(parts(width), rounds)
        for name in timing.seconds:
            seconds = timing.median(name)
            what = f"D = H = {width}: {name}"
            share = seconds / timing.median("step")
            found.append(harness.Row(what, {"time": f"{1e3 * seconds:.1f} ms"}, share))
    return found


def temporary_bytes(length: int, chunk: int, width: int, rows: int) -> int:
    """What XLA sets aside for a training step of our layer beside its inputs and results."""
    layer = RecurrentLayer(width, CellOptions(remat_chunk=chunk))
    x_TBD = jax.ShapeDtypeStruct((length, rows, width), jnp.float32)
    params = jax.eval_shape(lambda x: nn.meta.unbox(layer.init(jax.random.key(0), x)), x_TBD)
    step = _gradients(lambda params, x_TBD: layer.apply(params, x_TBD)[1])
    return step.lower(params, x_TBD).compile().memory_analysis().temp_size_in_bytes


def memory_rows(width: int = MEMORY_WIDTH, rows: int = MEMORY_ROWS) -> list[harness.Row]:
    """Memory against T, with everything kept and with chunks of the root of T."""
    found = []
    for length in LENGTHS:
        chunk = round(length**0.5)
        kept, chunked = (temporary_bytes(length, size, width, rows) for size in (0, chunk))
        columns = {
            "all kept": f"{kept / 2**20:.1f} MiB",
            "in chunks": f"{chunked / 2**20:.1f} MiB (remat_chunk={chunk})",
        }
        found.append(harness.Row(f"T {length}", columns, kept / chunked))
    return found


def main() -> int:
    """Measures, prints and keeps both tables."""
    options = harness.arguments(__doc__, rounds=15).parse_args()
    if not harness.has("torch"):
        return harness.skip(TITLE)
    memory.keep_freed_memory()
    busy = machine.cores_used_by_others()
    rows = [row for width in WIDTHS for row in compare(width, options.rounds)]
    notes = [
        "Result: time of the peer over ours, median of the rounds (quartiles). Flax runs"
        " `nn.RNN(nn.OptimizedLSTMCell)` in our process, PyTorch `nn.LSTM` in its own."
    ]
    harness.report(TITLE, rows, notes, options, busy)
    notes = [
        f"LSTM, B {ROWS}, T {LENGTH}. Result: share of the step. The products alone are what no"
        " program can leave out; the recurrent ones come one time step after another. The rest is"
        " gates and copies."
    ]
    harness.report(PARTS_TITLE, parts_rows(options.rounds), notes, options, busy)
    notes = [f"LSTM, B {MEMORY_ROWS}, D = H = {MEMORY_WIDTH}. Result: all kept over in chunks."]
    harness.report(MEMORY_TITLE, memory_rows(), notes, options, busy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
