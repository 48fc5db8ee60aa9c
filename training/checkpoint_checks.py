"""What a state must be to be saved, and a checkpoint to be restored into a state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from errors import ConfigError, NonFiniteError
from training.manifest import Manifest


def refuse_if_not_finite(step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """A state with a NaN or an infinity in it must never be taken for a good one.

    Raises:
        NonFiniteError: naming the first such array.
    """
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
            raise NonFiniteError(
                f"Array {name!r} is not finite after step {step}, though no step may make it so: "
                "this state is not saved. Run it again; it goes on from the last good checkpoint."
            )


def check_structure(folder: Path, manifest: Manifest, wanted: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another model or optimizer, naming the first array."""
    hint = "Was the model or the optimizer changed? Then choose another --workdir."
    for name in sorted(manifest.arrays.keys() ^ wanted.keys()):
        has = "has no" if name in wanted else "has an unknown"
        raise ConfigError(f"Checkpoint {folder} {has} array {name!r}. {hint}")
    for name, leaf in wanted.items():
        info = manifest.arrays[name]
        saved = f"{info.dtype}{list(info.shape)}"
        needed = f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
        if saved != needed:
            raise ConfigError(
                f"Checkpoint {folder} has array {name!r} as {saved}, this run needs {needed}. "
                f"{hint}"
            )
