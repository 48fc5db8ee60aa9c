"""The folder of checkpoints on the disk: which are there, and how they come and go.

A checkpoint is the folder <directory>/<step>: the arrays as Orbax writes them, and the
manifest, written last. A save goes through these names, so that one that was killed at any
point can be told from a checkpoint that was damaged later:

  7.saving                       step 7 is being saved; removed once its manifest is durable
  7.orbax-checkpoint-tmp*        arrays that Orbax has not committed
  7.replaced                     an earlier checkpoint of step 7, until the new one is good
  7.deleted                      an old checkpoint on its way out
  bad/7-20250131T120000          a damaged one, set aside by restore
"""

import os
import shutil
import time
from pathlib import Path

from errors import ConfigError
from training.files import fsync_file, fsync_folder
from training.manifest import FILE


class CheckpointFolder:
    """Names and moves; what is inside a checkpoint is not read here.

    All methods raise OSError as the system reports it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()

    def __truediv__(self, step: int) -> Path:
        return self.path / str(step)

    def steps(self) -> list[int]:
        """Steps that have a manifest, ascending, as the disk has them now."""
        return [step for step in self._folders() if (self / step / FILE).exists()]

    def candidates(self, step: int | None = None) -> list[Path]:
        """Checkpoints to try, newest first, damaged ones and those without manifest included.

        Args:
            step: only this one.

        Raises:
            ConfigError: there is no checkpoint of that step.
        """
        steps = [
            found
            for found in self._folders()
            if (self / found / FILE).exists() or not self._marker(found).exists()
        ]
        if step is None:
            return [self / found for found in reversed(steps)]
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise ConfigError(f"No checkpoint of step {step} in {self.path}. There are: {known}.")
        return [self / step]

    def begin(self, step: int) -> None:
        """Announces a save; an earlier checkpoint of this step makes room for it."""
        with open(self._marker(step), "w") as file:
            os.fsync(file.fileno())
        if (self / step).exists():
            (self / step).rename(self.path / f"{step}.replaced")
        fsync_folder(self.path)

    def sync(self, step: int) -> None:
        """Makes all files of a checkpoint durable, before its manifest is written."""
        for folder, _, names in os.walk(self / step):
            for name in names:
                fsync_file(Path(folder, name))
            fsync_folder(Path(folder))
        fsync_folder(self.path)

    def finish(self, step: int) -> None:
        """Ends a save whose manifest is written, or was never to be."""
        replaced = self.path / f"{step}.replaced"
        if not (self / step / FILE).exists():
            shutil.rmtree(self / step, ignore_errors=True)
            if replaced.exists():
                replaced.rename(self / step)
        elif replaced.exists():
            replaced.rename(self.path / f"{step}.deleted")
        self._marker(step).unlink(missing_ok=True)
        fsync_folder(self.path)
        self._remove(f"{step}.deleted")

    def keep_newest(self, number: int, also: int | None = None) -> None:
        """Deletes older checkpoints, but for one; those without manifest are not counted or
        touched."""
        for step in self.steps()[:-number]:
            if step != also:
                (self / step).rename(self.path / f"{step}.deleted")
                self._remove(f"{step}.deleted")

    def clean(self) -> None:
        """Removes what killed or failed saves left. Only the holder of the run lock may."""
        self._remove("*.orbax-checkpoint-tmp*")
        for marker in self.path.glob("*.saving"):
            self.finish(int(marker.stem))
        self._remove("*.deleted")

    def set_aside(self, folder: Path) -> Path:
        """Moves a damaged checkpoint to bad/, where nothing looks for it; returns its place."""
        stamp = time.strftime("%Y%m%dT%H%M%S")
        target = self.path / "bad" / f"{folder.name}-{stamp}"
        number = 1
        while target.exists():
            number += 1
            target = target.with_name(f"{folder.name}-{stamp}-{number}")
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        fsync_folder(self.path)
        return target

    def _folders(self) -> list[int]:
        if not self.path.is_dir():
            return []
        names = [entry.name for entry in os.scandir(self.path) if entry.is_dir()]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _marker(self, step: int) -> Path:
        return self.path / f"{step}.saving"

    def _remove(self, pattern: str) -> None:
        for path in self.path.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
