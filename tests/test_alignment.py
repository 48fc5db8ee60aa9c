"""Alignments from attention weights, and unknown words replaced through them."""

import errno
import json
import math

import jax
import model_cases
import numpy as np
import pytest

import data
import train
from analysis import alignment, attention, rare_words
from errors import ConfigError, DataError
from experiments import align, unknown_words
from training import files


def test_weights_between_words_sum_pieces_of_the_source_and_average_those_of_the_target():
    weights_TS = np.array([[0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.0, 0.2, 0.2, 0.6]])
    found = alignment.word_weights(weights_TS, [0, 0, 1, -1], [0, 0, 1])
    np.testing.assert_allclose(found, [[(0.8 + 0.2) / 2, (0.1 + 0.7) / 2], [0.2, 0.2]])


def test_links_by_hand():
    weights_TS = np.array([[0.7, 0.2, 0.1], [0.1, 0.45, 0.45], [0.0, 0.0, 0.0]])
    assert alignment.hard_links(weights_TS) == {(0, 0), (1, 1)}
    assert alignment.soft_links(weights_TS, 0.15) == {(0, 0), (1, 0), (1, 1), (2, 1)}


def test_entropy_between_its_limits():
    assert alignment.entropy(np.eye(3)) == 0
    assert alignment.entropy(np.full((2, 5), 0.2)) == pytest.approx(math.log(5))
    assert alignment.entropy(np.array([[0.5, 0.5, 0.0]])) == pytest.approx(math.log(2))
    assert alignment.entropy(np.array([[0.2, 0.2, 0.0]])) == pytest.approx(math.log(2))


def test_agreement():
    one_TS, other_TS = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.7, 0.3]])
    assert alignment.agreement(one_TS, one_TS) == 1
    assert alignment.agreement(one_TS, other_TS) == 0.5


def test_error_rate_by_hand():
    """Och & Ney 2003: 3 links found, 2 of 4 sure ones and 1 that is possible only."""
    counts = alignment.ErrorCounts()
    counts.add({(0, 0), (1, 1)}, {(0, 0), (1, 1), (2, 2)})
    counts.add({(5, 5)}, {(0, 0)}, {(5, 5)})
    assert counts.error_rate == pytest.approx(1 - (2 + 3) / (3 + 4))
    assert (counts.precision, counts.recall) == (1.0, 0.5)
    perfect, wrong = alignment.ErrorCounts(), alignment.ErrorCounts()
    perfect.add({(0, 0)}, {(0, 0)})
    wrong.add({(0, 1)}, {(0, 0)})
    assert (perfect.error_rate, wrong.error_rate) == (0, 1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    place = tmp_path_factory.mktemp("words")
    source = data.build_source({"name": "toy_language", "num_train": 50}, str(place))
    return data.build_tokenizer({"name": "words"}, source, str(place))


def test_unknown_words_come_from_the_lexicon_or_the_source(tokenizer):
    known = tokenizer.decode([5, 6]).split()
    source_text = f"{known[0]} Foo {known[1]} Bar"
    source, target = tokenizer.encode(source_text), [5, data.UNK, data.UNK]
    weights_TS = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6], [0.1, 0.8, 0.1, 0.0]])
    found = rare_words.replace_unknown(
        tokenizer, source_text, source, target, weights_TS, {"Foo": "fu"}
    )
    assert found == f"{known[0]} Bar fu"
    same = rare_words.replace_unknown(tokenizer, source_text, source, [5, 6], weights_TS)
    assert same == " ".join(known)


def test_unknown_words_are_counted(tokenizer):
    known = tokenizer.decode([5])
    found = rare_words.count_unknown(tokenizer, [f"{known} Foo Bar", f"Foo {known}"])
    assert found == (5, 3, 3, 2, [("Foo", 2), ("Bar", 1)])


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"a\tb\nc\n", DataError, "line 2"),
        (b"a\tb\tc\n", DataError, "line 1"),
        (b"a\t \n", DataError, "line 1"),
        (b"a\t\xff\n", DataError, "not UTF-8"),
        (None, ConfigError, "No such file"),
    ],
)
def test_a_bad_lexicon_is_one_line(tmp_path, content, kind, message):
    path = tmp_path / "lexicon.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=message) as caught:
        rare_words.read_lexicon(path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("align")
    arguments = ["--config=configs/synthetic.py:task=toy_language,model=transformer-tiny,smoke"]
    arguments += [f"--workdir={folder / 'run'}", f"--config.data_dir={folder / 'data'}"]
    assert train.main([*arguments, "--config.parallel.num_devices=1"]) == 0
    return folder / "run"


def test_every_head_of_a_run_is_measured(run, tmp_path, capsys):
    assert align.main([f"--workdir={run}", "--limit=4", f"--output={tmp_path / 'x.json'}"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].split() == ["entropy", "agreement", "precision", "recall", "aer"]
    assert len(lines) == 1 + 2 * 2 + 1  # layers, heads, and their mean
    kept = json.loads((tmp_path / "x.json").read_text())
    assert len(kept["sentences"]) == 4
    sentence = kept["sentences"][0]
    counts = alignment.ErrorCounts()
    for row in kept["sentences"]:
        for weights in row["weights"].values():
            assert np.shape(weights) == (len(row["target"]), len(row["source"]))
        counts.add(map(tuple, row["links"]["mean of all"]), map(tuple, row["known"]))
    assert kept["scores"]["mean of all"]["aer"] == pytest.approx(counts.error_rate)
    assert len(sentence["links"]["mean of all"]) == len(sentence["target"])


def test_unknown_words_of_a_run_are_reported(run, capsys):
    assert unknown_words.main([f"--workdir={run}"]) == 0
    out = capsys.readouterr().out
    assert "train source: 0 of" in out
    assert "test target" in out


def test_weights_of_pairs_read_together_are_those_of_each_alone(monkeypatch):
    model, variables = model_cases.make(model_cases.SEQ2SEQ["transformer"])
    lengths = ((3, 5), (20, 4), (7, 5), (6, 2), (3, 17))
    words = [[model_cases.tokens(1, n, seed=n)[0] for n in pair] for pair in lengths]
    pairs = [tuple(np.append(side, data.EOS) for side in pair) for pair in words]
    shapes, recorded = [], attention.recorded_weights

    def noted(model, variables, source_BS, inputs_BT):
        shapes.append((source_BS.shape, inputs_BT.shape))
        return recorded(model, variables, source_BS, inputs_BT)

    monkeypatch.setattr(attention, "recorded_weights", noted)
    monkeypatch.setattr(attention, "ROWS", 2)
    found = dict(attention.attention_of_pairs(model, variables, pairs))
    assert sorted(found) == list(range(len(pairs)))
    assert shapes == [((2, 16),) * 2] * 2 + [((2, 32),) * 2]
    for i in (1, 2, 3):  # without padding, in a batch of one
        source, target = pairs[i]
        inputs_BT = np.array([[data.BOS, *target[:-1]]], np.int32)
        alone = recorded(model, variables, source[None], inputs_BT)
        expected = {
            "/".join(key.key for key in path[:-2]): np.asarray(leaf)[0]
            for path, leaf in jax.tree.leaves_with_path(alone)
        }
        assert found[i].keys() == expected.keys()
        for name, weights in expected.items():
            np.testing.assert_allclose(found[i][name], weights, atol=1e-5, err_msg=name)


def test_output_is_written_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    sentence = align.Sentence(data.Example("a b", "c d"), {attention.MEAN: np.eye(2)})
    monkeypatch.setattr(align, "read", lambda options: [sentence])
    path = tmp_path / "x.json"
    path.write_text("earlier")

    def full(*names):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", full)
        assert align.main(["--workdir=x", f"--output={path}"]) == 74
    assert "No space left" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
    assert align.main(["--workdir=x", f"--output={tmp_path / 'no' / 'x.json'}"]) == 64
    assert "no such folder" in capsys.readouterr().err
    assert align.main(["--workdir=x", f"--output={path}"]) == 0
    assert json.loads(path.read_text())["sentences"][0]["source"] == ["a", "b"]


@pytest.mark.parametrize("script", [align, unknown_words])
def test_no_run_directory_is_one_line(script, tmp_path, capsys):
    assert script.main([f"--workdir={tmp_path}"]) == 64
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
