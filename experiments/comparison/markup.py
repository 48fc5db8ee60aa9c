"""Pieces of the report's HTML: escaped text, tables, pictures, and its style."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.comparison.pictures import short

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --quiet: #777; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, li { max-width: 46rem; } .quiet { color: var(--quiet); }
img { width: 100%; background: #fff; border-radius: 6px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
.texts :is(th, td) { text-align: left; white-space: normal; overflow-wrap: anywhere; }
thead th { background: var(--soft); vertical-align: bottom; }
.warn { border-left: 4px solid #D55E00; padding: .4rem .9rem; background: var(--soft); }
code { font-size: .9em; overflow-wrap: anywhere; }
"""


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def escape(value: Any) -> str:
    return html.escape(str(value), quote=True)


def image(uri: str, alt: str) -> str:
    return f'<img src="{uri}" alt="{escape(alt)}">'


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], texts: bool = False) -> str:
    """A table of escaped cells; numbers to the right, texts to the left."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    kind = "wide texts" if texts else "wide"
    return (
        f'<div class="{kind}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def number(value: float | None, digits: int = 4) -> str:
    return "\u2013" if value is None else f"{value:.{digits}f}"


def short_number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 or value >= 1e15 else short(value)
