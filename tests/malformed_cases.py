"""Arguments, files and folders that are wrong, made by rule; each names what must be said."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training import schema

WRONG = {  # values that no field of that type may have
    bool: ["maybe", 3, [], "{'a': 1}"],
    int: ["'x'", "1.5", "nan", "[1]", "none", "1e999", "-10**99", "'1 2'"],
    float: ["'x'", "nan", "inf", "-inf", "[]", "none", "{'a': 1}"],
    str: ["3", "[]", "{'a': 1}", "none"],
}
BASES = (
    "configs/synthetic.py:task=reverse,smoke",
    "configs/language_model.py:model=lm-lstm-tiny,smoke",
    "configs/bert.py:smoke",
)


def leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a config."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def wrong_fields(settings: dict) -> Iterator[tuple[str, str]]:
    """(--config. argument, field): wrong types, and names with a letter too few."""
    for name, value in leaves(schema.to_json(settings)):
        for text in WRONG.get(type(value), []):
            if type(value) is not str:  # a text may hold anything that a shell can write
                yield f"--config.{name}={text}", name
        if len(name.rpartition(".")[2]) > 3:
            yield f"--config.{name[:-1]}=1", name.rpartition(".")[2]


def wrong_rows(seed: int, number: int) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, content) of a table of pairs with one wrong row at a random place."""
    rng = random.Random(seed)
    evils = {
        "no tab": b"one two",
        "three fields": b"a\tb\tc",
        "empty": b"",
        "no target": b"uno\t",
        "no source": b"\tone",
        "only spaces": b" \t ",
        "not UTF-8": b"perch\xe9\twhy",
        "cut UTF-8": b"a\t\xe2\x82",
        "NUL": b"a\tb\x00",
        "surrogate": b"a\t\xed\xa0\x80",
        "overlong": b"a\t\xc0\xaf",
    }
    for i in range(number):
        rows = [b"riga %d\trow %d" % (k, k) for k in range(rng.randint(1, 40))]
        name = sorted(evils)[i % len(evils)]
        place = rng.randint(0, len(rows))
        rows.insert(place, evils[name])
        yield f"{name} in row {place + 1}", b"\n".join(rows) + b"\n"


def wrong_json(file: Path, seed: int, number: int) -> Iterator[tuple[str, bytes]]:
    """(what is wrong, content) of a JSON file: cut, another type, a name gone, bytes changed."""
    rng, content = random.Random(seed), file.read_bytes()
    tree = json.loads(content)
    for i in range(number):
        kind = ("cut", "type", "gone", "bytes", "empty", "nested")[i % 6]
        if kind == "cut":
            yield kind, content[: rng.randrange(1, len(content) - 2)]
        elif kind == "empty":
            yield kind, b""
        elif kind == "nested":
            yield kind, b"[" * 100_000
        elif kind == "bytes":
            place = rng.randrange(len(content))
            yield kind, content[:place] + b"\xff\xfe" + content[place + 2 :]
        elif isinstance(tree, dict):
            name = rng.choice(sorted(tree))
            others = {key: value for key, value in tree.items() if key != name}
            value = rng.choice([None, 3, "x", [], {"a": 1}, [[]], -1, True])
            changed = others if kind == "gone" else others | {name: value}
            if changed != tree:
                yield f"{kind} {name}", json.dumps(changed).encode()
