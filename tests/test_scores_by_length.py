"""Scores by sentence length: bins and scores by hand, and the command from end to end."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
import sacrebleu
import trainer_cases

import data
import train
from analysis.lengths import corpus_band, quantile_bins
from errors import ConfigError
from experiments import scores_by_length
from experiments.comparison import runs
from tasks.search import Translator
from training import config_files

KEPT = 5  # words after which the model of these tests stops
LENGTHS = np.arange(2, 22)
REFERENCES = [" ".join(f"w{i}x{j}" for j in range(length)) for i, length in enumerate(LENGTHS)]
OUTPUTS = [" ".join(text.split()[:KEPT]) for text in REFERENCES]


def mean_of(sums_X):
    return sums_X[0] / sums_X[1]


def test_bins_end_at_lengths_that_occur_and_never_part_equal_ones():
    bins = quantile_bins(np.array([3, 1, 9, 1, 2, 1, 3, 1]), 4)
    assert (bins.first.tolist(), bins.last.tolist()) == ([1, 2, 9], [1, 3, 9])
    assert bins.of_N.tolist() == [1, 0, 2, 0, 1, 0, 1, 0]
    bins = quantile_bins(LENGTHS, 4)
    assert bins.first.tolist() == [2, 7, 12, 17]
    assert bins.last.tolist() == [6, 11, 16, 21]
    assert quantile_bins(np.array([7, 7, 7]), 8).last.tolist() == [7]


def test_a_model_that_stops_after_some_words_loses_long_sentences():
    def measures(outputs):
        return scores_by_length.translation_measures(outputs, REFERENCES)

    bins = quantile_bins(LENGTHS, 4)
    found = scores_by_length.scores_of([OUTPUTS], measures, bins.of_N)
    for i, (first, last) in enumerate(zip(bins.first, bins.last, strict=True)):
        written = sum(min(KEPT, n) for n in range(first, last + 1))
        wanted = sum(range(first, last + 1))
        assert found["bleu"]["mean"][i] == pytest.approx(100 * math.exp(1 - wanted / written))
        assert found["length_ratio"]["mean"][i] == pytest.approx(written / wanted)
    assert np.all(np.diff(found["bleu"]["mean"]) < 0)
    assert np.all(np.diff(found["chrf"]["mean"]) < 0)
    assert found["bleu"]["all_sentences"] == [
        sacrebleu.BLEU().corpus_score(OUTPUTS, [REFERENCES]).score
    ]


def test_bleu_is_not_defined_where_no_reference_has_four_words():
    texts = ["a b c", "a b", "a b c d", "a b c d e"]

    def measures(outputs):
        return scores_by_length.translation_measures(outputs, texts)

    found = scores_by_length.scores_of([texts], measures, np.array([0, 0, 1, 1]))
    assert found["bleu"]["mean"] == found["bleu"]["low"] == [None, pytest.approx(100)]
    assert found["chrf"]["mean"] == [pytest.approx(100)] * 2


def test_scores_are_those_of_the_sentences_of_a_bin_and_means_over_runs():
    both = [OUTPUTS, [text.replace("x1", "x2") for text in REFERENCES]]
    bin_N = (LENGTHS > 12).astype(int)

    def measures(outputs):
        return scores_by_length.translation_measures(outputs, REFERENCES)

    found = scores_by_length.scores_of(both, measures, bin_N)
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
        for i in range(2):
            chosen = np.flatnonzero(bin_N == i)
            wanted = [REFERENCES[n] for n in chosen]
            scores = [metric.corpus_score([o[n] for n in chosen], [wanted]).score for o in both]
            assert found[name]["mean"][i] == pytest.approx(np.mean(scores))
            assert found[name]["low"][i] <= min(scores) < max(scores) <= found[name]["high"][i]


def test_phonemes_count_against_the_nearest_pronunciation():
    known = [["A B C D", "A B"], ["E F G", "E"]]
    found = scores_by_length.pronunciation_measures(["A B", "E X G H"], known)
    error_rate, ratio = found["phoneme_error_rate"], found["length_ratio"]
    assert error_rate.stats_NX.tolist() == [[0, 2], [2, 3]]
    assert error_rate.score(error_rate.stats_NX.sum(axis=0)) == 100 * 2 / 5
    assert ratio.score(ratio.stats_NX.sum(axis=0)) == 6 / 5


def test_bands_are_over_sentences_and_over_runs():
    values_N = np.random.default_rng(0).normal(3, 1, 400)
    one_RNX = np.stack([values_N, np.ones(400)], axis=-1)[None]
    band = corpus_band(one_RNX, mean_of)
    assert band.mean == pytest.approx(values_N.mean())
    error = 1.96 * values_N.std() / 20
    np.testing.assert_allclose(
        [band.low, band.high], band.mean + np.array([-error, error]), atol=0.02
    )
    same = corpus_band(np.ones((1, 9, 2)), mean_of)
    assert same == (1, 1, 1)
    # Two runs without a difference between sentences: the runs alone, 0 and 10, are drawn.
    runs_RNX = np.ones((2, 9, 2)) * [[[0, 1]], [[10, 1]]]
    assert corpus_band(runs_RNX, mean_of) == (5, 0, 10)
    # Both runs are tried on the same sentences, so two that are alike are as uncertain as one.
    both_alike = corpus_band(np.concatenate([one_RNX, one_RNX]), mean_of)
    assert both_alike.high - both_alike.low == pytest.approx(2 * error, rel=0.1)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two finished runs that differ in their seed."""
    folder = tmp_path_factory.mktemp("by_length")
    data_dir = trainer_cases.make_data_dir(folder / "data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer_cases.share_programs(monkeypatch)
        for seed in (0, 1):
            settings = trainer_cases.tiny(data_dir, "lstm", seed=seed)
            train.train(settings, folder / f"lstm-{seed}")
    return [folder / "lstm-0", folder / "lstm-1"]


def copied(run, folder, **task):
    """A copy of a run with other options of its task."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["task"].update(task)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def call(*arguments):
    return scores_by_length.main([str(argument) for argument in arguments])


def test_from_finished_runs_to_tables_and_a_picture(trained, tmp_path, capsys, monkeypatch):
    searches = []

    class Recorder(Translator):
        def __init__(self, *model, **options):
            searches.append(options)
            super().__init__(*model, **options)

    monkeypatch.setattr(scores_by_length, "Translator", Recorder)
    shorter = copied(trained[0], tmp_path / "lstm-shorter", length_penalty=0.5)
    out = tmp_path / "out"
    assert call(*trained, shorter, f"--out={out}", "--bins=2") == 0
    options = {"num_beams": 1, "length_penalty": 1.0, "max_length": 64}
    assert searches == [options, options, options | {"length_penalty": 0.5}]
    assert "8 sentences, beams 1" in capsys.readouterr().err
    numbers = json.loads((out / "scores_by_length.json").read_text())
    groups = [(g["label"], g["seeds"], g["band_over"]) for g in numbers["groups"]]
    assert groups == [("lstm", [0, 1], "sentences and seeds"), ("lstm-shorter", [0], "sentences")]
    assert sum(numbers["bins"]["sentences"]) == 8
    for run, score in zip(
        trained, numbers["groups"][0]["scores"]["bleu"]["all_sentences"], strict=True
    ):
        final = json.loads((run / "result.json").read_text())["scores"]
        assert score == final["bleu"]
    with (out / "scores_by_length.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(numbers["bins"]["first"])
    assert {row["seeds"] for row in rows} == {"0 1", "0"}
    chrf = [float(row["chrf_high"]) for row in rows if row["label"] == "lstm"]
    assert chrf == numbers["groups"][0]["scores"]["chrf"]["high"]
    assert (out / "scores_by_length.png").read_bytes()[:4] == b"\x89PNG"


def test_letters_to_phonemes_are_scored_by_their_error_rate(trained, tmp_path):
    run = copied(trained[0], tmp_path / "g2p", name="pronunciation")
    assert call(run, f"--out={tmp_path}", "--split=validation") == 0
    numbers = json.loads((tmp_path / "scores_by_length.json").read_text())
    assert (numbers["unit"], numbers["split"]) == ("letters", "validation")
    assert list(numbers["groups"][0]["scores"]) == ["phoneme_error_rate", "length_ratio"]


def test_outputs_are_kept_and_not_generated_again(trained, tmp_path, monkeypatch):
    asked = []

    def counted(run, texts):
        asked.append(run.path.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ["a  b\nc", *texts[1:]]

    monkeypatch.setattr(scores_by_length, "generate", counted)
    monkeypatch.setattr(scores_by_length.length_picture, "draw", lambda *_: None)
    arguments = [*trained, f"--out={tmp_path}", "--bins=1"]
    with pytest.raises(KeyboardInterrupt):
        call(*arguments)
    assert call(*arguments) == 0
    assert asked == ["lstm-0", "lstm-1", "lstm-1"]
    first, _ = sorted((tmp_path / "outputs").iterdir())
    assert first.read_text().splitlines()[0] == "a  b c"
    numbers = (tmp_path / "scores_by_length.json").read_text()
    assert call(*arguments) == 0
    assert len(asked) == 3
    assert (tmp_path / "scores_by_length.json").read_text() == numbers
    first.write_text("cut\n")  # not one line a sentence
    assert call(*arguments) == 0
    assert asked[3:] == ["lstm-0"]
    assert call(*arguments, "--split=validation") == 0
    again = copied(trained[0], tmp_path / "lstm-0")
    (again / "result.json").write_text((again / "result.json").read_text().replace("1", "2"))
    assert call(again, f"--out={tmp_path}", "--bins=1") == 0  # trained again: other outputs
    assert asked[4:] == ["lstm-0", "lstm-1", "lstm-0"]


def test_what_cannot_be_compared_is_refused_in_one_line(trained, tmp_path, capsys):
    source = json.loads((trained[0] / "config.json").read_text())["task"]["source"]
    other = copied(trained[0], tmp_path / "other", source={**source, "max_length": 6})
    phonemes = copied(trained[0], tmp_path / "phonemes", name="pronunciation")
    unfinished = copied(trained[0], tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    language_model = copied(trained[0], tmp_path / "language-model")
    config = config_files.load_config("configs/language_model.py:smoke")
    (language_model / "config.json").write_text(config.to_json())
    for arguments, words in (
        ([trained[0], other], "unequal data: data is"),
        ([trained[0], phonemes], "unequal data: task is"),
        ([trained[0], unfinished], "is not finished"),
        ([trained[0], trained[0]], "one config and one seed"),
        ([tmp_path / "nothing"], "is not a run directory"),
        ([language_model], "has the task language_modelling"),
        ([trained[0], "--bins=0"], "--bins must be at least 1"),
        ([], "required"),
    ):
        assert call(*arguments, f"--out={tmp_path / 'out'}") == 64
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert words in lines[0]
    assert not (tmp_path / "out").exists()


def test_other_tokenizers_of_the_same_text_are_no_obstacle(trained, tmp_path):
    other = copied(trained[0], tmp_path / "bytes", length_penalty=0.5)
    source = data.build_source({"name": "reverse"}, "")
    data.build_tokenizer({"name": "bytes"}, source, str(tmp_path)).save(other / "tokenizer")
    groups = runs.given([trained[0], other])
    runs.check_comparable(groups, tokenizers=False)
    with pytest.raises(ConfigError, match="tokenizer is"):
        runs.check_comparable(groups)


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["g2p-none-0", "g2p-none-1"], "g2p-none"),
        (["g2p-none-0"], "g2p-none-0"),
        (["lstm/seed=0", "lstm/seed=1"], "lstm"),
        (["lstm-seed-0", "lstm-seed-1"], "lstm"),
        (["one-0", "other-1"], "one-0"),
    ],
)
def test_a_group_is_called_what_its_folders_share(tmp_path, names, label):
    found = [
        runs.Run(tmp_path / name, {"seed": seed}, [], {}, {}) for seed, name in enumerate(names)
    ]
    assert runs.label_of(found) == label
