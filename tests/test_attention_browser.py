"""The attention page in a real browser: what it shows, its keys, its address, what it refuses."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from attention_cases import HOSTILE, hostile_payload, make_heads, make_run, make_view
from webdriver import driver

from experiments.attention_page import render

pytestmark = pytest.mark.browser

SOURCE = ["她", "把", "书", "放在", "桌子", "上", "。", "</s>"]
TARGET = ["وضعت", "الكتاب", "على", "الطاولة", "שלום", "</s>"]
TRANSFORMER = make_heads({"encoder": (2, 2), "cross": (2, 3)})
RECURRENT = make_heads({"alignment": (1, 2)})
SHOWN = "document.querySelector('{run} .tile[aria-pressed=true]').dataset.head"


@pytest.fixture(scope="module")
def start():
    with driver() as opened:
        yield opened


@pytest.fixture(scope="module")
def browser(start):
    return start("--window-size=1500,1000")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Two architectures on two sentences, and what tables say of the first."""
    effects = {
        "cross.0.0": {"change": 0.0},
        "cross.0.1": {"change": 0.25, "low": 0.1, "high": 0.4, "p": 0.002},
    }
    role = {"role": "previous token", "score": 0.83, "chance": 0.1, "label": True}
    first = make_run(
        TRANSFORMER, "zh-ar", effects=effects, roles={"cross.0.1": [role]},
        scores={"cross.0.1": {"AER": 0.125}},
    )  # fmt: skip
    pairs = [(SOURCE, TARGET), (TARGET, SOURCE)]
    sentences = [
        {
            "title": "".join(source),
            "views": [make_view(h, source, writes, [(1, 0)]) for h in (TRANSFORMER, RECURRENT)],
        }
        for source, writes in pairs
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    runs = [first, make_run(RECURRENT, "lstm")]
    path.write_text(render({"runs": runs, "sentences": sentences}), encoding="utf-8")
    return path


def head_shown(browser, run: int = 0) -> str:
    return browser.run(SHOWN.format(run=f".run:nth-child({run + 1})"))


def test_it_draws_says_nothing_and_asks_for_nothing(browser, page, tmp_path):
    browser.open(page)
    assert browser.console() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("performance.getEntriesByType('resource').length") == 0
    count = "document.querySelectorAll('{}').length"
    assert browser.run(count.format(".run")) == 2
    assert browser.run(count.format(".run:first-child .tile canvas")) == 6
    assert browser.run(count.format(".view line")) > 20
    assert browser.run(count.format(".view path[fill-opacity]")) > 20
    words = browser.run("[...document.querySelectorAll('.token text')].map(t => t.textContent)")
    assert set(SOURCE) | set(TARGET) <= set(words)
    # The first cell of the first map is as dark as its weight.
    dark = (
        "document.querySelector('.tile canvas').getContext('2d').getImageData(0, 0, 1, 1).data[3]"
    )
    weight = "mapsOf(0, await weightsOf(0, 0)).get('cross.0.0').root(0, 0)"
    assert browser.run(f"(async () => {weight})()") == pytest.approx(
        browser.run(dark) / 255, abs=1e-6
    )
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_keys_move_between_heads_layers_parts_sentences_and_runs(browser, page):
    browser.open(page)
    assert (head_shown(browser), head_shown(browser, 1)) == ("cross.0.0", "alignment.0.0")
    pressed = [
        ("Right", "cross.0.1"),
        ("Down", "cross.1.1"),
        ("Down", "cross.1.1"),  # there is no further layer
        ("Left", "cross.1.0"),
        ("Up", "cross.0.0"),
        ("a", "encoder.0.0"),
        ("a", "cross.0.0"),
    ]
    for key, expected in pressed:
        browser.press(key)
        assert head_shown(browser) == expected, key
    row = "[...document.querySelectorAll('.view .token text')].slice(0, 2).map(t => t.textContent)"
    assert browser.run(row) == TARGET[:2]
    browser.press("n")
    assert browser.run(row) == SOURCE[:2]
    browser.press("n", "p")
    assert "sentence=1" in browser.run("location.hash")
    browser.press("r")
    assert browser.run("document.querySelector('.run.focused h2').textContent") == "lstm"
    browser.press("?")
    assert browser.run("document.getElementById('keys').open")
    browser.press("?")
    assert not browser.run("document.getElementById('keys').open")
    assert browser.console() == []


def test_the_address_opens_a_head_and_a_wrong_one_opens_the_page(browser, page):
    browser.open(page, "#sentence=1&run=1&heads=encoder.1.0,alignment.0.1")
    assert (head_shown(browser), head_shown(browser, 1)) == ("encoder.1.0", "alignment.0.1")
    assert browser.run("document.getElementById('sentence').value") == "1"
    tried = 0
    for fragment in ("#x", "#sentence=-7&run=99&heads=cross.9.9", "#heads=__proto__.1.1", "#%"):
        browser.open(page, fragment)
        assert head_shown(browser) == "cross.0.0", fragment
        tried += 1
    assert browser.console() == []
    print(f"{tried} wrong addresses")


def test_what_is_known_of_a_head_stands_beside_it(browser, page):
    browser.open(page, "#heads=cross.0.1")
    facts = browser.run("document.querySelector('.facts').textContent")
    for words in ("AER0.125", "+0.250 (0.100 to 0.400)p of that0.0020", "previous token0.83"):
        assert words in facts
    frame = "getComputedStyle(document.querySelector('[data-head=\"{}\"]')).backgroundColor"
    assert browser.run(frame.format("cross.0.1")) != browser.run(frame.format("cross.0.0"))
    links = browser.run("document.querySelectorAll('.view rect[stroke-width]').length")
    assert links == 2  # one in each run


def test_light_and_dark(browser, page):
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.devtools("Emulation.setEmulatedMedia", features=media)
        browser.open(page)
        seen[scheme] = browser.run(ground)
        line = browser.run("document.querySelector('.view line').getAttribute('stroke')")
        browser.press("t")
        browser.wait(f"{ground} !== '{seen[scheme]}'")
        assert browser.run("document.querySelector('.view line').getAttribute('stroke')") != line
        assert (browser.run(ground) == seen["light"]) == (scheme == "dark")
    browser.devtools("Emulation.setEmulatedMedia", features=[])
    assert seen["light"] != seen["dark"]


def test_the_picture_that_is_saved_is_what_is_shown(browser, page, tmp_path):
    browser.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(page, "#heads=cross.1.2")
    browser.press("s")
    browser.wait("new Promise(done => setTimeout(() => done(true), 300))")
    root = ElementTree.parse(tmp_path / "attention.svg").getroot()
    texts = ["".join(element.itertext()) for element in root.iter(f"{root.tag[:-3]}text")]
    assert {"zh-ar", "lstm", "cross · layer 1 · head 2", *SOURCE, *TARGET} <= set(texts)
    shown = browser.run("document.querySelectorAll('.view line').length")
    assert len(list(root.iter(f"{root.tag[:-3]}line"))) == shown
    content = (tmp_path / "attention.svg").read_text(encoding="utf-8")
    assert not re.search(r"var\(|light-dark|style=", content)


def test_hostile_texts_do_nothing(browser, tmp_path):
    """R41. Without the policy too: what keeps them harmless is that text is text."""
    markup = render(hostile_payload())
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", markup)
    assert without != markup
    for name, content in (("with", markup), ("without", without)):
        path = tmp_path / f"{name}.html"
        path.write_text(content, encoding="utf-8")
        browser.open(path)
        browser.press("n", "a", "Right", "s")
        assert browser.console() == []
        assert browser.requests() == [path.as_uri()] or name == "without"
        assert browser.run("window.__harm === undefined && ({}).__harm === undefined")
        assert browser.run("document.scripts.length") == 2
        tags = browser.run("[...new Set([...document.querySelectorAll('*')].map(e => e.tagName))]")
        assert not {"IMG", "IFRAME", "OBJECT", "EMBED", "BASE", "FORM", "MARQUEE"} & set(tags)
        options = "document.querySelectorAll('#sentence option').length"
        assert browser.run(options) == len(HOSTILE)
    print(f"{len(HOSTILE)} texts")


def test_the_policy_stops_a_script_that_got_in(browser, page, tmp_path):
    """The second wall, seen to stand: markup that page.html itself would have to hold."""
    bad = "<img src=x onerror='window.__harm=1'><script>window.__harm=1</script>"
    path = tmp_path / "broken.html"
    path.write_text(page.read_text(encoding="utf-8").replace("<noscript>", bad + "<noscript>"))
    browser.open(path)
    assert browser.run("window.__harm === undefined")
    assert any("Content Security Policy" in message for message in browser.console())
