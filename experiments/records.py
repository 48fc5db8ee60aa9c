"""What a command that trains several runs keeps of its plan, in the folder of the runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError
from training.files import storage_errors, write_atomic


def read(path: Path, version: int, *fields: str) -> dict[str, Any] | None:
    """A record that write() made, with these fields, or None where there is none.

    Raises:
        ConfigError: it is damaged, or of another version of the program.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({str(error).splitlines()[0]}).") from error
    if (
        not isinstance(found, dict)
        or found.get("format") != version
        or not found.keys() >= set(fields)
    ):
        raise ConfigError(f"{path} is no plan of this program. Choose another --out.")
    return found


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record, which says its format, in one step; makes the folder if need be."""
    with storage_errors("write the plan to", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(record, indent=1) + "\n")
