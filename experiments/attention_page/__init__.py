"""One HTML file that shows attention: it opens from disk and asks nothing of any network.

The page is page.html with page.css and SCRIPTS inside, and a payload that is data to the
browser, never code: JSON in ASCII in which no "<" stands. The content security policy allows the
one style sheet and the one script by their digests, and pictures out of the page itself.

A weight w becomes the byte round(255 sqrt(w)): it is wrong by at most sqrt(w) / 255, so that
small weights keep their size. The bytes of a sentence are deflated: rows of attention sum to one
and are mostly small, so 12 layers of 12 heads over 128 tokens stay under 3 MB, whatever they are.
"""

import base64
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SCRIPTS = ("draw.js", "state.js", "panels.js", "page.js")  # one script, in this order
JOINERS = "\u200c\u200d"  # letters of Persian and of Hindi, and families of emoji, need them


def pack(maps: Iterable[np.ndarray]) -> str:
    """Weights in [0, 1] of any shapes, one after another, in base64."""
    parts = [np.clip(np.nan_to_num(weights), 0, 1).ravel() for weights in maps]
    quantised = np.round(255 * np.sqrt(np.concatenate(parts))).astype(np.uint8)
    return base64.b64encode(zlib.compress(quantised.tobytes(), 9)).decode()


def unpack(text: str) -> np.ndarray:
    """The weights of `pack`, flat."""
    quantised = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.square(quantised / np.float32(255))


def visible(text: str) -> str:
    """The text with what is invisible, or would turn round its neighbours, as its number.

    >>> visible("a\\u202eb"), visible(" ")
    ('a⟨202E⟩b', '␣')
    """
    if not text.strip(" "):
        return "␣" * max(len(text), 1)
    return "".join(
        f"⟨{ord(c):04X}⟩"
        if unicodedata.category(c) in ("Cc", "Cf", "Cn", "Cs", "Zl", "Zp") and c not in JOINERS
        else c
        for c in text
    )


def embedded(payload: Mapping[str, Any]) -> str:
    """The payload as JSON that may stand inside a script element."""
    text = json.dumps(payload, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def render(payload: Mapping[str, Any]) -> str:
    """The page that shows a payload (experiments/attention_payload.py)."""
    css = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(css)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "css": css, "script": script, "payload": embedded(payload)}
    template = (HERE / "page.html").read_text(encoding="utf-8")
    # In one pass: what is put in is not searched again.
    return re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], template)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
