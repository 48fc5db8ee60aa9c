"""Reading checkpoints, verified, without the state that was saved; nothing on the disk changes.

For whatever uses a trained model, and for averaging checkpoints. It may read while a trainer is
writing.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from errors import ConfigError, StorageError
from training.checkpoint_folder import CheckpointFolder
from training.files import patiently
from training.manifest import Damaged, Manifest

ITEM = "arrays"  # the folder of the arrays inside a checkpoint

log = logging.getLogger(__name__)


def good_steps(directory: str | os.PathLike) -> list[int]:
    """Steps of the checkpoints now on the disk, ascending.

    They have a manifest, which is written when all else is; load() verifies the digests.
    """
    return CheckpointFolder(directory).steps()


def load(
    directory: str | os.PathLike, step: int | None = None, subtree: str = ""
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint, verified, without knowing the state; changes nothing on the disk.

    Args:
        directory: the folder of a Checkpointer, which may be at work in it.
        step: the checkpoint to read, or None for the newest good one.
        subtree: read only what is below this path, such as "params".

    Returns:
        (step, arrays, meta); arrays as nested dicts of NumPy arrays, from the subtree down.

    Raises:
        ConfigError: there is no checkpoint, none of that step, or no such subtree.
        StorageError: none is intact.
    """
    bad: list[tuple[Path, str]] = []
    for folder in CheckpointFolder(directory).candidates(step):
        try:
            manifest = Manifest.read(folder)
            prefix = f"{subtree}/" if subtree else ""
            names = [name for name in manifest.arrays if name.startswith(prefix)]
            if not names:
                known = ", ".join(sorted({name.split("/")[0] for name in manifest.arrays}))
                raise ConfigError(f"Checkpoint {folder} has no {subtree!r}. Known: {known}.")
            arrays = read_arrays(folder, manifest, names)
        except Damaged as damage:
            log.warning("Checkpoint %s is damaged: %s. It is passed over.", folder, damage)
            bad.append((folder, str(damage)))
            continue
        tree: dict[str, Any] = {}
        for name, array in arrays.items():
            *path, last = name.removeprefix(prefix).split("/")
            branch = tree
            for key in path:
                branch = branch.setdefault(key, {})
            branch[last] = array
        return manifest.step, tree, manifest.meta
    refuse_if_all_are_bad(bad)
    raise ConfigError(f"No checkpoint in {Path(directory)}.")


def read_arrays(folder: Path, manifest: Manifest, names: list[str]) -> dict[str, np.ndarray]:
    """Reads arrays of a checkpoint to the host and verifies them.

    Raises:
        Damaged: they cannot be read, or are not what was saved.
    """
    arrays: dict[str, np.ndarray] = {}
    stored = {}
    for name in names:
        info = manifest.arrays[name]
        if 0 in info.shape:
            arrays[name] = np.zeros(info.shape, np.dtype(info.dtype))
        else:
            stored[name] = ocp.RestoreArgs(restore_type=np.ndarray)
    manifest.verify_files(folder)
    try:
        arrays |= patiently(lambda: _read_stored(folder, stored))
        manifest.verify_arrays(arrays)
    except (Damaged, MemoryError):
        raise
    except Exception as error:  # whatever Orbax and TensorStore make of wrong bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Damaged(f"its arrays cannot be read ({reason[:200]})") from error
    return arrays


def _read_stored(folder: Path, stored: dict[str, Any]) -> dict[str, np.ndarray]:
    alone = this_process_alone()
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        args = ocp.args.PyTreeRestore(stored, restore_args=stored, partial_restore=True)
        return reader.restore(folder / ITEM, args)


def this_process_alone() -> ocp.options.MultiprocessingOptions:
    """Keeps Orbax from waiting for other processes of the run: each reads for itself, and one
    writes."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )


def refuse_if_all_are_bad(bad: list[tuple[Path, str]]) -> None:
    """Raises StorageError, with what is wrong with each, if there are any at all."""
    if bad:
        reasons = "; ".join(f"step {folder.name}: {reason}" for folder, reason in bad)
        raise StorageError(f"No checkpoint in {bad[0][0].parent} is intact: {reasons}.")


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Drops what Orbax and TensorStore print of an error that is also raised.

    When the disk fills up in the middle of a save that is pages of tracebacks, from several
    threads, in which the one line that matters would be lost.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def of_others(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def drop_late_writes(unraisable: Any) -> None:
        # TensorStore finishes other arrays after Orbax has left its event loop over the first.
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logger.addFilter(of_others)
    sys.unraisablehook = drop_late_writes
    try:
        yield
    finally:
        logger.removeFilter(of_others)
        sys.unraisablehook = hook
