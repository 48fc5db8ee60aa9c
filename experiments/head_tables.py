"""Tables of a run's heads: RUN/analysis/heads.csv (what ablation says) and roles.csv."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from analysis.attention import PARTS, Head
from errors import DataError

NUMBERS = ("change", "low", "high", "p", "score", "chance", "threshold")
Row = dict[str, str | float]


def read_effects(workdir: str | Path) -> dict[Head, dict[str, float]]:
    """Of each head, change of loss without it, and low, high and p where the table has them.

    Empty without a table. A head that stands there more than once counts as it stands first.
    """
    found: dict[Head, dict[str, float]] = {}
    for head, row in _rows(Path(workdir) / "analysis" / "heads.csv", "change"):
        numbers = {k: v for k, v in row.items() if isinstance(v, float)}
        if "change" in numbers:
            found.setdefault(head, numbers)
    return found


def read_roles(workdir: str | Path) -> dict[Head, list[Row]]:
    """The rows of each head in the table of experiments/head_roles.py; empty without one."""
    found: dict[Head, list[Row]] = {}
    for head, row in _rows(Path(workdir) / "analysis" / "roles.csv", "score"):
        found.setdefault(head, []).append(row)
    return found


def _rows(path: Path, needed: str) -> Iterator[tuple[Head, Row]]:
    """The rows that are about one head; numbers where they are finite.

    Raises:
        DataError: the table cannot be read or lacks a column.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error
    columns = {"part", "layer", "head", needed}
    if rows and not columns <= rows[0].keys():
        raise DataError(f"{path}: needs the columns {', '.join(sorted(columns))}.")
    for row in rows:
        place = [str(row[axis]).strip() for axis in ("part", "layer", "head")]
        if place[0] in PARTS and place[1].isdecimal() and place[2].isdecimal():
            values: Row = {k: v for k, v in row.items() if k and v and k not in NUMBERS}
            values |= {k: number for k in NUMBERS if (number := _number(row.get(k))) is not None}
            yield Head(place[0], int(place[1]), int(place[2])), values


def _number(text: str | None) -> float | None:
    try:
        found = float(text or "")
    except ValueError:
        return None
    return found if math.isfinite(found) else None
