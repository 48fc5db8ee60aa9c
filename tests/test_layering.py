"""Imports go one way, files and functions stay short, and no text names a registry or a path
of one machine.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 300
CODE = {".py", ".js", ".css"}
MAX_FUNCTION_LINES = 60  # of code: docstrings, comments and blank lines are free

# Who may import what of ours, beside itself; all but these three modules may import all three.
SHARED = {"errors", "registry", "trees"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "registry": {"errors"},
    "trees": set(),
    "models": SHARED,
    "decoding": SHARED,
    "data": SHARED,
    "training": SHARED,
    "tasks": SHARED | {"data", "decoding"},
    "analysis": SHARED | {"models", "data", "decoding"},
    "configs": SHARED | {"published"},
    "published": SHARED | {"models", "data"},
    "trained": SHARED | {"models", "data", "tasks", "training", "published"},
    "train": SHARED | {"models", "tasks", "training", "trained"},
}
FREE = {"experiments", "benchmarks", "tests"}
OURS = ALLOWED.keys() | FREE

SKIPPED = {"runs", "build", "__pycache__"}
# Spelled in parts, so that this file does not hold what it forbids.
HOSTS = (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian", "org"))
FOLDERS = (("", "work", ""), ("", "root", ""), ("", "opt", "wheels"))
FORBIDDEN = re.compile(
    "|".join(
        [re.escape(".".join(host)) for host in HOSTS]
        + [rf"(?<![\w.~$}}]){'/'.join(folder)}" for folder in FOLDERS]
    )
)
PINNED = re.compile(r"#.*|[A-Za-z0-9_.-]+==[0-9a-z.]+")


def project_files(folder: Path) -> Iterator[Path]:
    """All files of the project: no runs and caches, and of the hidden folders only .ci."""
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in {".ci", ".gitignore"}
        if hidden or path.name in SKIPPED or path.suffix == ".egg-info":
            continue
        yield from project_files(path) if path.is_dir() else [path]


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each absolute import; a relative one stays in its package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def num_code_lines(function: ast.AST, lines: list[str]) -> int:
    """Lines of the function without docstrings, comments and blank lines."""
    kept = set(range(function.lineno, function.end_lineno + 1))
    for node in ast.walk(function):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            kept -= set(range(node.lineno, node.end_lineno + 1))
    return sum(not re.match(r"\s*(#|$)", lines[number - 1]) for number in kept)


def python_complaints(layer: str, text: str) -> Iterator[tuple[int, str]]:
    """What is wrong with one module, by line."""
    tree, lines = ast.parse(text), text.splitlines()
    if layer not in OURS:
        yield 1, f"{layer} has no row in ALLOWED"
    for number, module in imported_modules(tree):
        name = module.split(".")[0]
        if layer in ALLOWED and name in OURS - ALLOWED[layer] - {layer}:
            yield number, f"{layer} may not import {name}"
        if layer == name == "configs" and not module.startswith("configs.base"):
            yield number, "of the configs, only configs.base is for import"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = num_code_lines(node, lines)
            if count > MAX_FUNCTION_LINES:
                yield node.lineno, f"{node.name}: {count} lines, at most {MAX_FUNCTION_LINES}"


def complaints(root: Path) -> list[str]:
    """All violations below a folder as `file:line: sentence`."""
    found: list[tuple[Path, int, str]] = []
    for path in project_files(root):
        relative = path.relative_to(root)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an archive
        if path.suffix == ".py":
            layer = relative.parts[0].removesuffix(".py")
            found += [(relative, *complaint) for complaint in python_complaints(layer, text)]
        if path.suffix in CODE and (count := len(text.splitlines())) > MAX_FILE_LINES:
            found.append((relative, count, f"longer than {MAX_FILE_LINES} lines"))
        for number, line in enumerate(text.splitlines(), 1):
            if match := FORBIDDEN.search(line):
                found.append((relative, number, f"names {match[0]}"))
            if relative.parts[0] == "requirements" and not PINNED.fullmatch(line):
                found.append((relative, number, f"not NAME==VERSION: {line}"))
    return [f"{path}:{number}: {sentence}" for path, number, sentence in found]


def test_the_repository_keeps_its_rules():
    problems = complaints(REPO)
    print(f"{sum(1 for _ in project_files(REPO))} files")
    assert not problems, "\n" + "\n".join(problems)


LONG_FUNCTION = "def long():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
VIOLATIONS = [
    ("models/a.py", "import data\n", "1: models may not import data"),
    ("models/b/c.py", "def f():\n    from training.loop import g\n", "2: models may not import tr"),
    ("registry.py", "from models import build\n", "1: registry may not import models"),
    ("errors.py", "import registry as r\n", "1: errors may not import registry"),
    ("tasks/a.py", "import json, train\n", "1: tasks may not import train"),
    ("train.py", "from configs.base import schema\n", "1: train may not import configs"),
    ("configs/a.py", "from configs import translation\n", "1: of the configs, only configs.base"),
    ("helpers/a.py", "import json\n", "1: helpers has no row in ALLOWED"),
    ("tests/test_a.py", "x = 1\n" * (MAX_FILE_LINES + 1), "301: longer than 300 lines"),
    ("experiments/a.js", "x = 1\n" * (MAX_FILE_LINES + 1), "301: longer than 300 lines"),
    ("data/a.py", LONG_FUNCTION, "1: long: 61 lines, at most 60"),
    ("README.md", "one\n\ncd " + "/".join(FOLDERS[0]) + "main\n", "3: names "),
    (".ci/run", "pip install -i https://" + ".".join(HOSTS[0]) + "/simple\n", "1: names "),
    ("requirements/py311.txt", "# pins\njax>=1\n", "2: not NAME==VERSION: jax>=1"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), VIOLATIONS, ids=[v[0] for v in VIOLATIONS])
def test_a_seeded_violation_is_caught(tmp_path, name, text, sentence):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    found = complaints(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{name}:{sentence}")


GOOD = '''
import json
from .models import own_module
from errors import DataError
from data.sources import x
from decoding import greedy_search
def documented():
    """
    {long}
    """
    # a comment
'''


def test_what_is_allowed_passes(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.py").write_text(GOOD.format(long="line\n" * 100), encoding="utf-8")
    (tmp_path / "note.md").write_text("network/work/x and ~/work/y", encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "b.py").write_text(LONG_FUNCTION, encoding="utf-8")
    assert complaints(tmp_path) == []
