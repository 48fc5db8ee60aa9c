"""Pairs of sentences with a pronoun: their words, where heads look from, and a planted head."""

import csv

import numpy as np
import pytest
from translate_cases import save_run

import experiments.attention_payload as payload
from data import UNK
from experiments import coreference
from training import config_files

FIRST = {"tired", "large"}  # endings that are said of the first noun


def test_the_sentences_differ_in_their_ending_alone():
    english, italian = (list(coreference.pairs(language)) for language in ("en", "it"))
    assert len(english) == len(italian) >= 20
    for one, other in english + italian:
        assert one.text.split()[:-1] == other.text.split()[:-1]
        assert one.text.split()[-1] != other.text.split()[-1]
        assert one.words == other.words
        assert one.words["ending"] == [len(one.text.split()) - 1]
    one, other = english[0]
    assert one.text == "The animal did not cross the street because it was too tired"
    assert one.words == {"first": [0, 1], "second": [5, 6], "it": [8], "ending": [11]}
    texts = [(one.text, other.text) for one, other in italian]
    assert texts[0][0] == "L'animale non attraversò la strada perché era troppo stanco"
    assert texts[0][1].endswith("troppo larga")
    assert any(one.endswith("stanca") and other.endswith("largo") for one, other in texts)


def test_where_each_part_looks_from():
    english = {"first": [0, 1], "second": [5, 6], "it": [8], "ending": [11, 12]}
    italian = {"first": [0], "second": [3, 4], "ending": [8, 9]}
    from_italian = coreference.Read({}, italian, english)
    assert from_italian.looks("encoder") == (9, [0], [3, 4])
    assert from_italian.looks("decoder") == (13, [1, 2], [6, 7])
    assert from_italian.looks("cross") == from_italian.looks("alignment") == (8, [0], [3, 4])
    from_english = coreference.Read({}, english, italian)
    assert from_english.looks("encoder") == (8, [0, 1], [5, 6])
    assert from_english.looks("decoder") == (10, [1], [4, 5])
    assert from_english.looks("cross") == (8, [0, 1], [5, 6])


@pytest.fixture(scope="module")
def english_run(tmp_path_factory):
    """A Transformer from Italian to English with every word of the sentences, and no others."""
    folder = tmp_path_factory.mktemp("winograd")
    texts = folder / "text"
    texts.mkdir()
    sides = [
        [text.text for pair in coreference.pairs(language) for text in pair]
        for language in ("it", "en")
    ]
    lines = "\n".join(map("\t".join, zip(*sides, strict=True))) + "\n"
    for split in ("train", "validation", "test"):
        (texts / f"{split}.tsv").write_text(lines, encoding="utf-8")
    languages = "source_language=it,target_language=en,model=transformer-tiny"
    config = config_files.load_config(f"configs/translation.py:data={texts},{languages}")
    config.task.tokenizer = {"name": "words"}
    return save_run(folder / "run", folder, config)


def planted(weights: dict, english: list[str]) -> dict:
    """Head 1 of the decoder's layer 1 looks from the last word at what it is said of."""
    maps_HTS = np.array(weights["decoder/layers_1/self_attention"])
    second = 1 + next(i for i, word in enumerate(english) if word in ("cross", "into")) + 1
    noun = 1 if english[-1] in FIRST else second
    maps_HTS[1, len(english)] = 0
    maps_HTS[1, len(english), [noun, noun + 1]] = 0.4
    return weights | {"decoder/layers_1/self_attention": maps_HTS}


def test_the_planted_head_is_found(english_run, monkeypatch, tmp_path, capsys):
    shown = payload.Shown(str(english_run), None, 128)
    assert UNK not in shown.run.tokenizer.encode("The animal was too tired")
    real = payload.attention_weights

    def plant(model, variables, source, target):
        english = shown.run.tokenizer.decode(target).split()
        return planted(real(model, variables, source, target), english)

    monkeypatch.setattr(payload, "attention_weights", plant)
    output = tmp_path / "coreference.csv"
    assert coreference.main([f"--workdir={english_run}", f"--output={output}"]) == 0
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    first, *others = rows
    assert (first["part"], first["layer"], first["head"]) == ("decoder", "1", "1")
    assert float(first["first_ending"]) == pytest.approx(0.8)
    assert float(first["second_ending"]) == pytest.approx(-0.8)
    assert float(first["contrast"]) == pytest.approx(1.6)
    assert first["label"] == "yes"
    assert {row["label"] for row in others} == {"no"}
    said = capsys.readouterr().out
    num_pairs = len(list(coreference.pairs("en")))
    assert f"{num_pairs} of {num_pairs} pairs, such as 'The animal did not cross" in said
    assert "decoder 1.1" in said


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("transformer", [], "its source_language is ''. Say --source_language"),
        (
            "transformer",
            ["--source_language=it", "--target_language=en"],
            "can write none of the sentences; it lacks",
        ),
        ("language-model", ["--target_language=en"], "can write none of the sentences"),
        ("lstm", ["--source_language=en", "--target_language=it"], "can write none"),
        ("language-model", ["--target_language=fr"], "invalid choice"),
    ],
)
def test_what_cannot_be_asked_is_one_line(runs, tmp_path, name, more, words, capsys):
    assert coreference.main([f"--workdir={runs[name]}", *more]) == 64
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (runs[name] / "analysis" / "coreference.csv").exists()
