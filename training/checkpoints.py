"""Checkpoints that are whole, verified and never silently wrong.

Orbax writes the arrays, atomically; a manifest with a digest of each (training/manifest.py) is
written last. A checkpoint is good when the manifest is there and every digest matches. Arrays
are named by their path in the state, such as "params/decoder/out/bias", and written from the
host, whole: what is on the disk knows nothing of devices, and needs no state to be read.
"""

import concurrent.futures
import contextlib
import errno
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from errors import ConfigError, NonFiniteError, StorageError
from training import distributed
from training.checkpoint_checks import check_structure, refuse_if_not_finite
from training.checkpoint_folder import CheckpointFolder
from training.checkpoint_reader import (
    ITEM,
    quiet_orbax,
    read_arrays,
    refuse_if_all_are_bad,
    this_process_alone,
)
from training.files import free_bytes, patiently, size, storage_errors
from training.manifest import ArrayInfo, Damaged, Manifest, file_digests
from training.run_directory import now, provenance
from trees import named_leaves

MARGIN = 1 << 20  # bytes, more than a save writes besides its arrays

log = logging.getLogger(__name__)


class Checkpointer:
    """Saves and restores a pytree of arrays; a context manager.

    One process at a time may write to a directory: hold the run lock before entering. To read
    only, use training/checkpoint_reader.py, which changes nothing on the disk. Of the processes
    of one run all call the methods, and the first writes.

    Args:
        directory: the folder that holds one folder for each checkpoint.
        keep: how many of the newest good checkpoints to keep, at least 2.
        fingerprint: digests (configuration, data, tokenizer) stored with each checkpoint.
        journal: called as journal("save", step=...) when a save is good, from another thread,
            and as journal("set_aside", step=..., reason=...) for a damaged checkpoint.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        keep: int,
        fingerprint: Mapping[str, str],
        journal: Callable[..., None] = lambda event, **fields: None,
    ):
        self._folder = CheckpointFolder(directory)
        self._keep = max(keep, 2)
        self._fingerprint = dict(fingerprint)
        self._journal = journal
        self._provenance = provenance()
        self._parent_step: int | None = None
        self._saving: concurrent.futures.Future | None = None

    def __enter__(self) -> "Checkpointer":
        if distributed.is_first():
            with storage_errors("write checkpoints to", self._folder.path):
                self._folder.path.mkdir(parents=True, exist_ok=True)
                self._folder.clean()
        alone = this_process_alone()
        handler = ocp.PyTreeCheckpointHandler(
            use_compression=False,  # floats hardly shrink
            multiprocessing_options=alone,
        )
        composite = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
            **{ITEM: handler},
        )
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax())
        self._orbax = ocp.AsyncCheckpointer(composite, multiprocessing_options=alone)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            self.wait()
        except (StorageError, NonFiniteError) as failed:
            if error is None:
                raise
            log.warning("%s", failed)  # the first error is the one to report
        finally:
            self._thread.shutdown()
            with contextlib.suppress(Exception):  # a failed save was reported by wait()
                self._orbax.close()
            self._quiet.close()

    def steps(self) -> list[int]:
        """Steps of the checkpoints now on the disk, ascending; digests are not read."""
        return self._folder.steps()

    def save(
        self, step: int, state: Any, meta: Mapping[str, Any], also_keep: int | None = None
    ) -> None:
        """Copies the state to the host and lets other threads write it.

        The state's buffers may be donated as soon as this returns. An earlier checkpoint of
        the same step is replaced once the new one is good.

        Args:
            step: number of updates done.
            state: a pytree of arrays, on any devices.
            meta: JSON values to keep with it.
            also_keep: step of an older checkpoint that this save must not delete.

        Raises:
            StorageError: there is no room for this save, or the one before it failed; earlier
                checkpoints are intact.
            NonFiniteError: the one before it had a NaN or an infinity, and was not written.
        """
        self.wait()
        copied_meta = json.loads(json.dumps(meta))
        # Copies of our own: on CPU device_get gives views of the live buffers, and that JAX does
        # not overwrite a donated buffer while such a view exists is nowhere promised.
        arrays = distributed.host_arrays(named_leaves(state))
        if not distributed.is_first():
            return
        needed = sum(array.nbytes for array in arrays.values()) + MARGIN
        if free_bytes(self._folder.path) < needed:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self._failed(step, needed, full) from full
        self._saving = self._thread.submit(
            self._complete, step, arrays, copied_meta, needed, also_keep
        )

    def wait(self) -> None:
        """Blocks until the last save is good.

        Raises:
            StorageError, NonFiniteError: it failed. Said once.
        """
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def restore(
        self, abstract_state: Any, step: int | None = None, must_match: Iterable[str] = ()
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest good checkpoint, bit for bit, or that of one step.

        Every array is verified. Damaged checkpoints that are newer than the one restored are
        set aside, with one line each in the log.

        Args:
            abstract_state: the pytree to restore, with a jax.ShapeDtypeStruct for each array;
                its sharding, or else the default device, says where the array goes. It need
                not be the sharding under which the array was saved.
            step: the checkpoint to restore, and no other.
            must_match: names of the fingerprint that may not differ from the checkpoint's.

        Returns:
            (step, state, meta), or None if there is no checkpoint.

        Raises:
            ConfigError: the checkpoint is of another configuration, or there is no such step.
            StorageError: no checkpoint is intact; they all stay where they are.
        """
        self.wait()
        if distributed.number() == 1:
            return self._restore(abstract_state, step, must_match)
        if distributed.is_first():
            found = self._restore(abstract_state, step, must_match)
        # What is damaged was set aside before the others look.
        step = distributed.agreed("restored", lambda: found and found[0])
        if not distributed.is_first():
            found = None if step is None else self._restore(abstract_state, step, must_match)
        return found

    def _restore(
        self, abstract_state: Any, step: int | None, must_match: Iterable[str]
    ) -> tuple[int, Any, dict[str, Any]] | None:
        wanted = named_leaves(abstract_state)
        bad: list[tuple[Path, str]] = []
        for folder in self._folder.candidates(step):
            try:
                manifest = Manifest.read(folder)
                self._check_fingerprint(folder, manifest, must_match)
                check_structure(folder, manifest, wanted)
                arrays = read_arrays(folder, manifest, list(wanted))
            except Damaged as damage:
                bad.append((folder, str(damage)))
                continue
            for damaged, reason in bad:
                self._set_aside(damaged, reason)
            self._parent_step = manifest.step
            leaves = [
                distributed.place(arrays[name], getattr(leaf, "sharding", None))
                for name, leaf in wanted.items()
            ]
            state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
            return manifest.step, state, manifest.meta
        refuse_if_all_are_bad(bad)
        return None

    def _complete(
        self,
        step: int,
        arrays: dict[str, np.ndarray],
        meta: dict,
        needed: int,
        also_keep: int | None,
    ) -> None:
        """Writes a checkpoint, makes it good, then deletes older ones."""
        try:
            infos = {name: ArrayInfo.of(name, array) for name, array in arrays.items()}
            refuse_if_not_finite(step, arrays)
            patiently(lambda: self._write(step, arrays, infos, meta))
            self._parent_step = step
            patiently(lambda: self._folder.finish(step))
            self._folder.keep_newest(self._keep, also_keep)
            self._journal("save", step=step)
        except NonFiniteError:
            raise
        except Exception as error:
            raise self._failed(step, needed, error) from error

    def _write(
        self,
        step: int,
        arrays: Mapping[str, np.ndarray],
        infos: Mapping[str, ArrayInfo],
        meta: dict,
    ) -> None:
        """The arrays and, once they are durable, the manifest; begins anew where it has failed."""
        self._folder.clean()
        self._folder.begin(step)
        # Orbax takes no array of size zero; the manifest says all there is to say of it.
        item = {name: array for name, array in arrays.items() if array.size}
        target, saved = self._folder / step, ocp.args.PyTreeSave(item)
        self._orbax.save(target, ocp.args.Composite(**{ITEM: saved}))
        self._orbax.wait_until_finished()
        self._folder.sync(step)
        Manifest(
            step=step,
            parent_step=self._parent_step,
            arrays=infos,
            files=file_digests(self._folder / step, ITEM),
            meta=meta,
            fingerprint=self._fingerprint,
            provenance={**self._provenance, "time": now()},
        ).write(self._folder / step)

    def _failed(self, step: int, needed: int, error: Exception) -> StorageError:
        """Removes what a failed save left; returns the line that says why it failed."""
        free = 0
        with contextlib.suppress(OSError):
            free = free_bytes(self._folder.path)
            self._folder.clean()
        reason = " ".join(str(error).split())
        if "No space left" in reason or "RESOURCE_EXHAUSTED" in reason:
            reason = "no space left on the disk"
        return StorageError(
            f"Cannot save checkpoint {self._folder / step}: {reason[:300]}; {size(needed)} needed, "
            f"{size(free)} free. Earlier checkpoints are intact."
        )

    def _set_aside(self, folder: Path, reason: str) -> None:
        with storage_errors("set aside the damaged checkpoint", folder):
            target = self._folder.set_aside(folder)
        log.warning("Checkpoint %s is damaged: %s. It was moved to %s.", folder, reason, target)
        self._journal("set_aside", step=int(folder.name), reason=reason)

    def _check_fingerprint(self, folder: Path, saved: Manifest, names: Iterable[str]) -> None:
        for name in names:
            then, now = saved.fingerprint.get(name), self._fingerprint.get(name)
            if then != now:
                raise ConfigError(
                    f"Cannot resume from {folder}: {name} was {then!r} and is now {now!r}. "
                    "Undo the change, or choose another --workdir."
                )
