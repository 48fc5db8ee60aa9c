"""Attention pages as files: weights, size, texts, and the command that writes them."""

import json
import re
import shutil

import numpy as np
import pytest
from attention_cases import HOSTILE, hostile_payload, make_heads, make_run, make_view, soft
from translate_cases import make_run as make_run_directory

from analysis.attention import MEAN, Head, attention_weights, by_head, heads_across
from errors import ConfigError
from experiments import show_attention
from experiments.attention_page import embedded, pack, render, unpack, visible
from experiments.attention_payload import Shown
from experiments.attention_picture import draw, maps_of
from experiments.head_tables import read_effects, read_roles
from trained import load_run

LIMIT = 3_000_000  # bytes of a page of 12 layers of 12 heads over 128 tokens


def payload_of(page: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', page, re.DOTALL)[1])


def test_weights_come_back_to_within_their_root_over_255():
    maps = [soft(np.random.default_rng(0), 5, 7), np.array([[0.0, 1.0], [np.nan, 1e-7]])]
    expected = np.concatenate([maps[0].ravel(), [0, 1, 0, 1e-7]])
    error = np.abs(unpack(pack(maps)) - expected)
    assert (error <= np.sqrt(expected) / 255 + 1e-5).all()
    assert error[-4:].max() < 1e-6


@pytest.mark.parametrize("sharpness", [0.0, 0.3, 1.0, 3.0])
def test_twelve_layers_of_twelve_heads_over_128_tokens_are_small(sharpness):
    """However noisy: the roots of a row's weights are 1 / sqrt(128) large on average."""
    rng = np.random.default_rng(0)
    raised = np.exp(sharpness * rng.normal(size=(144, 128, 128)))
    words = [f"word{i}" for i in range(128)]
    view = {"source": words, "reads": words, "writes": words, "links": []}
    view["weights"] = pack([raised / raised.sum(-1, keepdims=True)])
    heads = make_heads({"encoder": (12, 12)})
    payload = {"runs": [make_run(heads)], "sentences": [{"title": "t", "views": [view]}]}
    size = len(render(payload).encode())
    print(f"sharpness {sharpness}: {size:,} bytes")
    assert size < LIMIT


def test_a_page_is_its_template_whatever_the_texts_are():
    """R41: the markup of a hostile page is that of a harmless one."""
    markup = re.compile(r'(id="payload">).*?(</script>)', re.DOTALL)
    harmless = {"runs": [make_run([])], "sentences": []}
    page = render(hostile_payload())
    assert markup.sub(r"\1\2", page) == markup.sub(r"\1\2", render(harmless))
    assert payload_of(page) == hostile_payload()
    for text in HOSTILE:
        content = embedded({text: text})
        assert content.isascii()
        assert not set(content) & set("<>&")
        assert json.loads(content) == {text: text}
        shown = visible(text)
        shown.encode()  # no lone surrogate is left
        assert not set(shown) & set("\0\u2028\u202e\u2066\x1b\n")
        assert shown
    assert len(HOSTILE) >= 80
    print(f"{len(HOSTILE)} texts")


def test_the_page_names_no_address_and_forbids_all():
    page = render({"runs": [], "sentences": []})
    assert set(re.findall(r"\w+://[^\"]*", page)) == {"http://www.w3.org/2000/svg"}
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    scripts = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", page)
    assert scripts == []


def test_visible_keeps_letters_and_shows_what_is_hidden():
    assert visible("日本語 שלום العربية 🙂") == "日本語 שלום العربية 🙂"
    for joined in ("\u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f4bb"):
        assert visible(joined) == joined
    assert visible("a\u202eb\0") == "a⟨202E⟩b⟨0000⟩"
    assert (visible(""), visible("  ")) == ("␣", "␣␣")


# ------------------------------------------------------------------ run directories


@pytest.fixture(scope="module")
def language_model(runs):
    return runs["language-model"]


def test_a_language_model_looks_at_what_it_has_read(language_model):
    run = load_run(language_model, "language_model")
    ids = np.array([5, 6, 7, 3], np.int32)
    found = by_head(attention_weights(run.model, run.variables, None, ids))
    assert list(found) == [Head("decoder", layer, h) for layer in range(2) for h in range(2)]
    for map_TS in found.values():
        assert map_TS.shape == (4, 4)
        np.testing.assert_allclose(map_TS.sum(-1), 1, atol=1e-5)
        assert (np.triu(map_TS, 1) == 0).all()
    other = np.array([5, 6, 9, 3], np.int32)  # what follows the first words does not matter
    for head, map_TS in by_head(attention_weights(run.model, run.variables, None, other)).items():
        np.testing.assert_allclose(map_TS[:3], found[head][:3], atol=1e-6)


def test_stacked_and_numbered_layers_have_the_same_names():
    weights_HTS = np.ones((2, 3, 3))
    looped = {f"encoder/layers_{i}/self_attention": weights_HTS for i in range(11)}
    stacked = {"encoder/layers/self_attention": np.ones((11, 2, 3, 3))}
    expected = [Head("encoder", layer, h) for layer in range(11) for h in range(2)]
    assert list(by_head(looped)) == list(by_head(stacked)) == expected
    paths = {"decoder_1/attention": weights_HTS, "decoder/layers_0/cross_attention": weights_HTS}
    assert list(by_head(paths))[1::2] == [Head("cross", 0, 1), Head("alignment", 1, 1)]
    assert list(heads_across(looped | paths)) == [
        *(f"cross, layer 0, head {h}" for h in range(2)),
        *(f"alignment, layer 1, head {h}" for h in range(2)),
        MEAN,
    ]
    with pytest.raises(ConfigError, match="does not look at the source"):
        heads_across(looped)


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """A page of two architectures, one with tables, and its pictures."""
    folder = tmp_path_factory.mktemp("page")
    copied = shutil.copytree(runs["transformer"], folder / "transformer")
    (copied / "analysis").mkdir()
    tables = {
        "heads.csv": "part,layer,head,change,low,high,p\ncross,1,0,0.25,0.1,nan,\nall,,,9,,,\n",
        "roles.csv": "part,layer,head,role,score,chance,label\ncross,1,0,first token,0.5,0.1,yes\n",
    }
    for name, text in tables.items():
        (copied / "analysis" / name).write_text(text)
    arguments = [f"--workdir={copied}", f"--workdir={runs['lstm-attention']}"]
    arguments.append(f"--workdir={runs['language-model']}")
    arguments += [f"--output={folder / 'page.html'}", f"--png={folder / 'a.png'}", "--limit=2"]
    assert show_attention.main(arguments) == 0
    return folder


def test_the_command_shows_what_the_models_look_at(runs, page):
    payload = payload_of((page / "page.html").read_text())
    assert [run["name"] for run in payload["runs"]] == [
        "transformer",
        "lstm-attention",
        "language-model",
    ]
    parts = [{head["part"] for head in run["heads"]} for run in payload["runs"]]
    assert parts == [{"encoder", "decoder", "cross"}, {"alignment"}, {"decoder"}]
    assert all(view["source"] == [] for s in payload["sentences"] for view in s["views"][2:])
    assert payload["runs"][0]["effects"] == {"cross.1.0": {"change": 0.25, "low": 0.1}}
    assert payload["runs"][0]["roles"]["cross.1.0"][0]["label"] is True
    run = load_run(runs["transformer"], "seq2seq")
    view = payload["sentences"][0]["views"][0]
    ids = [
        np.array([*run.tokenizer.encode(" ".join(view[side][:-1])), 3], np.int32)
        for side in ("source", "writes")
    ]
    expected = by_head(attention_weights(run.model, run.variables, *ids))
    for found, map_TS in zip(maps_of(payload), expected.values(), strict=True):
        np.testing.assert_allclose(found, map_TS, atol=1 / 255)
    assert (page / "a.png").read_bytes().startswith(b"\x89PNG")
    assert view["reads"] == ["<s>", *view["writes"][:-1]]
    assert view["links"]  # the copy task knows them
    assert "AER" in payload["runs"][0]["scores"]["cross.0.0"]


def test_a_sentence_without_a_target_is_translated(runs, tmp_path, monkeypatch):
    real, written = Shown._translate, []

    def translate(self, source):
        written.append(real(self, source))
        return written[-1]

    monkeypatch.setattr(Shown, "_translate", translate)
    lines = tmp_path / "lines.txt"
    lines.write_text("a b\tc d\n\nb <b>\n", encoding="utf-8")
    output = tmp_path / "page.html"
    arguments = [f"--workdir={runs['lstm-attention']}", f"--input={lines}", f"--output={output}"]
    assert show_attention.main(arguments) == 0
    payload = payload_of(output.read_text())
    assert [s["title"] for s in payload["sentences"]] == ["a b", "b <b>"]
    assert payload["sentences"][0]["views"][0]["writes"] == ["c", "d", "</s>"]
    assert len(written) == 1  # the other has its target
    assert len(payload["sentences"][1]["views"][0]["writes"]) == len(written[0]) + 1


def test_pictures_take_any_token(tmp_path):
    heads = make_heads({"alignment": (1, 1)})
    tokens = ["$x_$", "日本", "⟨202E⟩", "$", "</s>"]
    payload = {
        "runs": [make_run(heads, "$\\frac$")],
        "sentences": [{"title": "", "views": [make_view(heads, tokens, tokens)]}],
    }
    draw(tmp_path / "a.pdf", payload)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]


def test_what_is_wrong_is_one_line(runs, tmp_path, capsys):
    transformer = f"--workdir={runs['transformer']}"
    empty = make_run_directory(tmp_path / "empty", tmp_path, "transformer-tiny")
    for step in (empty / "checkpoints").iterdir():
        step.rename(tmp_path / step.name)
    cases = [
        ([f"--workdir={tmp_path / 'none'}"], 64, "is not a run directory"),
        ([f"--workdir={empty}"], None, "checkpoint"),
        ([f"--workdir={runs['lstm']}", "--limit=1"], 64, "has no attention"),
        ([transformer, "--checkpoint=9"], 64, "No checkpoint of step 9"),
        ([transformer, "--checkpoint=1", "--checkpoint=2"], 64, "one for each --workdir"),
        ([transformer, "--limit=0"], 64, "--limit"),
        ([transformer, "--pdf=maps.png"], 64, "--pdf maps.png: its name must end in .pdf."),
        ([transformer, "--sentence= "], 65, "empty"),
        ([transformer, f"--input={tmp_path / 'none'}"], 65, "cannot be read"),
        ([transformer, "--sentence=a\tb", f"--output={tmp_path}/no/x.html"], 74, "Cannot write"),
        ([], 64, "--workdir"),
    ]
    for arguments, code, words in cases:
        found = show_attention.main(arguments)
        err = capsys.readouterr().err
        assert found == code or (code is None and found), arguments
        assert words in err, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    print(f"{len(cases)} cases")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("part,layer,head,change\ncross,0,1,0.5\ncross,0,1,0.7\n", {Head("cross", 0, 1): 0.5}),
        ("part,layer,head,change,x\nbad,0,1,1,\ncross,a,0,1\ncross,0,0,nan\n", {}),
        ("", {}),
    ],
)
def test_tables_are_read_as_they_come(tmp_path, text, expected):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "heads.csv").write_text(text)
    assert {head: row["change"] for head, row in read_effects(tmp_path).items()} == expected
    assert read_roles(tmp_path) == {}
