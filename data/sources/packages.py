"""Data files that Python packages carry, found without importing the packages."""

import hashlib
import importlib.metadata
from pathlib import Path

from errors import DataError

HELD_OUT = {0: "test", 1: "validation"}  # of 20 parts


def package_file(package: str, path: str, what: str, install: str) -> Path:
    """A file of an installed package, found through the list of its files.

    Args:
        package, path: names of the package and of the file in it.
        what: the data, at the beginning of the message: "The Bible's text".
        install: the command that installs it.

    Raises:
        DataError: the package is not installed, or has no such file.
    """
    try:
        found = Path(str(importlib.metadata.distribution(package).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"{what} is not installed. Run: {install}") from None
    if not found.is_file():
        raise DataError(f"{found} is missing. Run: {install} --force-reinstall")
    return found


def hashed_split(text: str) -> str:
    """A twentieth of all texts for validation and one for test, by a hash of the text."""
    part = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 20
    return HELD_OUT.get(part, "train")
