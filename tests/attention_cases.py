"""Payloads of attention pages with weights that are known, and texts that mean harm."""

from typing import Any

import numpy as np

from experiments.attention_page import pack

HOSTILE = [
    "</script><script>window.__harm=1</script>",
    "</SCRIPT ><script>window.__harm=1</script>",
    "<script>window.__harm=1</script>",
    "<!--<script>window.__harm=1</script>",
    "<!--",
    "-->",
    "--!><img src=x onerror=window.__harm=1>",
    "<![CDATA[<script>window.__harm=1</script>]]>",
    "]]><script>window.__harm=1</script>",
    "<img src=x onerror=window.__harm=1>",
    "<img src='x' onerror='window.__harm=1'>",
    '"><img src=x onerror=window.__harm=1>',
    "'><img src=x onerror=window.__harm=1>",
    "<svg onload=window.__harm=1>",
    "<svg><script>window.__harm=1</script></svg>",
    "</svg><script>window.__harm=1</script>",
    "</text><script>window.__harm=1</script>",
    "</title><script>window.__harm=1</script>",
    "</style><script>window.__harm=1</script>",
    "<style>body{display:none}</style>",
    "<style>@import 'http://127.0.0.1:9/x.css'</style>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "<iframe src=javascript:parent.__harm=1></iframe>",
    "<iframe srcdoc='<script>parent.__harm=1</script>'></iframe>",
    "<object data=javascript:window.__harm=1>",
    "<embed src=http://127.0.0.1:9/x>",
    "<base href=http://127.0.0.1:9/>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<form action=http://127.0.0.1:9/><input autofocus onfocus=window.__harm=1>",
    "<body onload=window.__harm=1>",
    "<details open ontoggle=window.__harm=1>",
    "<video><source onerror=window.__harm=1></video>",
    "<audio src=x onerror=window.__harm=1>",
    "<marquee onstart=window.__harm=1>",
    "<a href=javascript:window.__harm=1>x</a>",
    "<math><mtext><script>window.__harm=1</script></mtext></math>",
    "<template><script>window.__harm=1</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=window.__harm=1>'>",
    "<textarea></textarea><script>window.__harm=1</script>",
    "<select><option></select><script>window.__harm=1</script>",
    "javascript:window.__harm=1",
    "data:text/html,<script>window.__harm=1</script>",
    '" onmouseover="window.__harm=1',
    "' onmouseover='window.__harm=1",
    '" autofocus onfocus="window.__harm=1',
    "` onclick=`window.__harm=1",
    '";window.__harm=1;//',
    "';window.__harm=1;//",
    "`;window.__harm=1;//",
    '\\";window.__harm=1;//',
    "\\u003cscript\\u003ewindow.__harm=1\\u003c/script\\u003e",
    "\\x3cscript>window.__harm=1</script>",
    "${window.__harm=1}",
    "{{script}}",
    "{{payload}}",
    "{{css}}{{policy}}",
    "\\g<0>\\1",
    "&lt;script&gt;window.__harm=1&lt;/script&gt;",
    "&#60;script&#62;window.__harm=1&#60;/script&#62;",
    "&quot;&apos;&amp;",
    "%3Cscript%3Ewindow.__harm=1%3C/script%3E",
    "+ADw-script+AD4-window.__harm=1+ADw-/script+AD4-",
    "url(javascript:window.__harm=1)",
    "x;background:url(http://127.0.0.1:9/x)",
    "expression(window.__harm=1)",
    "__proto__",
    "constructor",
    "toString",
    "\u2028window.__harm=1\u2029",
    "\u202egnp.exe",
    "\u2066\u202e)1=mrah(\u2069",
    "\u200f\u200e",
    "\u0000<script>window.__harm=1</script>",
    "\u0001\u0008\u001b[31m",
    "\ud800",
    "\udfff<img src=x onerror=window.__harm=1>",
    "\ufeff\ufffe\uffff",
    "\U0010ffff\U000e0001",
    "\r\n\t<script>window.__harm=1</script>",
    "a" * 5000,
    "Z\u0351\u036b\u0343a\u0329" * 50,
    "",
    "   ",
    "<scr\u0000ipt>window.__harm=1</scr\u0000ipt>",
]


def soft(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights of rows that sum to one."""
    raised = np.exp(3 * rng.normal(size=shape))
    return raised / raised.sum(-1, keepdims=True)


def make_heads(parts: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Heads of parts that have so many layers and heads."""
    return [
        {"part": part, "layer": layer, "head": head}
        for part, (layers, heads) in parts.items()
        for layer in range(layers)
        for head in range(heads)
    ]


def make_view(heads: list[dict], source: list[str], writes: list[str], links: Any = ()) -> dict:
    """Random weights of those heads between those tokens."""
    reads = ["<s>", *writes[:-1]]
    sides = {
        "encoder": (source, source),
        "decoder": (reads, reads),
        "cross": (writes, source),
        "alignment": (writes, source),
    }
    rng = np.random.default_rng(len(source))
    maps = [soft(rng, *map(len, sides[head["part"]])) for head in heads]
    tokens = {"source": source, "reads": reads, "writes": writes}
    return {**tokens, "links": [list(link) for link in links], "weights": pack(maps)}


def make_run(heads: list[dict], name: str = "run", **tables: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"effects": {}, "roles": {}, "scores": {}}
    return {"name": name, "about": "a model, step 1", "heads": heads, **empty, **tables}


def hostile_payload() -> dict[str, Any]:
    """Every hostile text as a name, a title, a token of each side and a role."""
    from experiments.attention_page import visible

    texts = [visible(text) for text in HOSTILE]
    heads = make_heads({"cross": (1, 2)})
    runs = [
        make_run(
            heads,
            name=" ".join(texts),
            about=" ".join(texts),
            roles={
                "cross.0.0": [
                    {"role": text, "score": 0.5, "chance": 0.1, "label": True} for text in texts
                ]
            },
            scores={"cross.0.0": dict.fromkeys(texts, 0.5)},
        )
    ]
    view = make_view(heads, texts, texts)
    return {"runs": runs, "sentences": [{"title": text, "views": [view]} for text in texts]}
