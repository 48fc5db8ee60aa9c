"""Writes docs/files.md: every module with the first line of its docstring.

python experiments/list_files.py
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    *("models", "decoding", "data", "tasks", "training", "analysis"),
    *("configs", "experiments", "benchmarks", "tests"),
)
TARGET = ROOT / "docs" / "files.md"
HEAD = "# Every file in one line\n\nWritten by `python experiments/list_files.py`.\n"


def lines_of(paths: list[Path]) -> Iterator[str]:
    """A row of a table for each module that says what it is."""
    for path in sorted(paths):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if text:
            yield f"| `{path.relative_to(ROOT).as_posix()}` | {first_sentence(text)} |"


def first_sentence(docstring: str) -> str:
    """The first paragraph in one line."""
    return " ".join(docstring.split("\n\n")[0].split()).replace("|", "\\|")


def listing() -> str:
    """The whole page."""
    groups = {"The root": list(ROOT.glob("*.py"))}
    groups |= {f"`{name}/`": list((ROOT / name).rglob("*.py")) for name in FOLDERS}
    parts = [HEAD]
    for title, paths in groups.items():
        parts.append("\n".join(["", f"## {title}", "", "| file | what it is |", "| --- | --- |"]))
        parts.append("\n".join(["", *lines_of(paths), ""]))
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(listing(), encoding="utf-8")
