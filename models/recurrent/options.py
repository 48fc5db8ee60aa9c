"""The options that all recurrent models hand down to their cells."""

import dataclasses
from typing import Any, Literal

import jax

from errors import ConfigError
from registry import NonNegativeInt, Rate, shown

# option -> the only cell that has it
ONLY = {"activation": "rnn", "peepholes": "lstm", "forget_bias": "lstm", "recurrent_bias": "gru"}
# What cuDNN's LSTM computes otherwise or not at all.
NOT_IN_CUDNN = ("layer_norm", "peepholes", "zoneout_rate", "variational_dropout_rate")


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class CellOptions:
    """What a cell is and how it runs. A model inherits these fields as options of its own.

    Equal options share one compiled step, so an instance is never changed.

    Attributes:
        cell: see models/recurrent/cells.py for the equations.
        activation: of the Elman network ("rnn").
        layer_norm: normalises what enters the gates (Ba et al. 2016).
        peepholes: the LSTM's gates see its cell state (Gers et al. 2002).
        zoneout_rate: chance that a unit keeps its last value (Krueger et al. 2017).
        variational_dropout_rate: of inputs and state, one mask for all steps of a
            sequence (Gal & Ghahramani 2016).
        recurrent_init: of each gate's recurrent matrix.
        forget_bias: first bias of the LSTM's forget gate (Jozefowicz et al. 2015: start by
            remembering).
        recurrent_bias: a bias inside the GRU's reset, as PyTorch and cuDNN have it.
        remat_chunk: steps after which the backward pass keeps a state; what lies between
            is computed again. 0 keeps everything. Near the square root of T it needs the
            least memory.
        kernel: "scan" runs anywhere; "cudnn" needs an NVIDIA GPU, rows that are not packed, and
            runs the layers without attention.
    """

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh"
    layer_norm: bool = False
    peepholes: bool = False
    zoneout_rate: Rate = 0.0
    variational_dropout_rate: Rate = 0.0
    recurrent_init: Literal["orthogonal", "xavier_uniform"] = "orthogonal"
    forget_bias: float = 1.0
    recurrent_bias: bool = False
    remat_chunk: NonNegativeInt = 0
    kernel: Literal["scan", "cudnn"] = "scan"

    def cell_options(self) -> "CellOptions":
        """These fields alone, where a model inherits them.

        Raises:
            ConfigError: an option that the cell or the kernel does not have.
        """
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(CellOptions)}
        changed = [name for name in found if found[name] != getattr(CellOptions, name)]
        for name in changed:
            if ONLY.get(name, self.cell) != self.cell:
                self._refuse(name, found[name], f"is for cell={ONLY[name]!r} only", "cell")
            if self.kernel == "cudnn" and name in NOT_IN_CUDNN:
                self._refuse(name, found[name], "needs kernel='scan'", "kernel")
        if self.kernel == "cudnn" and self.cell != "lstm":
            self._refuse("kernel", self.kernel, "is for cell='lstm' only", "cell")
        if self.kernel == "cudnn" and jax.default_backend() != "gpu":
            raise ConfigError("config.model.kernel='cudnn' needs a GPU, and JAX finds none.")
        return CellOptions(**found)

    def _refuse(self, name: str, value: Any, why: str, other: str) -> None:
        got = shown(getattr(self, other))
        raise ConfigError(f"config.model.{name}={shown(value)} {why}, got {other}={got}.")
