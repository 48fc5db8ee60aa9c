"""A comparison from end to end: plan, interruption, numbers, page, refusals."""

import csv
import html
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import trainer_cases

import data
import train
from errors import Preempted
from experiments import learning_curves
from experiments.comparison import page, plan, runs
from experiments.comparison.tokens import token_losses
from trained import load_run, load_task
from training.metrics import read_metrics

LSTM = "configs/hidden_markov.py:model=lm-lstm-tiny,length=6,smoke"
TRANSFORMER = "configs/hidden_markov.py:model=lm-transformer-tiny,length=6,smoke"
RUNS = [
    f"{label}/seed={seed}"
    for seed in (0, 1)
    for label in ("lm-lstm-tiny-length=6-smoke", "lm-transformer-tiny-length=6-smoke")
]


class Comparison:
    """A comparison that was interrupted in its third run, and the calls of train.train."""

    def __init__(self, folder, monkeypatch):
        self.out, self.calls = folder / "out", []
        data_dir = trainer_cases.make_data_dir(folder / "data")
        self.arguments = [
            f"--config={LSTM}",
            f"--config={TRANSFORMER}",
            f"--out={self.out}",
            "--seeds=2",
            "--match=params",
            f"--config.data_dir={data_dir}",
            "--config.eval_every=1",
            "--config.parallel.num_devices=1",
        ]
        real = train.train

        def counted(settings, workdir):
            self.calls.append(workdir.relative_to(self.out / "runs").as_posix())
            if len(self.calls) == 3:
                raise Preempted("stopped")
            return real(settings, workdir)

        monkeypatch.setattr(train, "train", counted)
        self.codes = [learning_curves.main(self.arguments) for _ in range(2)]
        self.numbers = json.loads((self.out / "numbers.json").read_text())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer_cases.share_programs(monkeypatch)
        yield Comparison(tmp_path_factory.mktemp("comparison"), monkeypatch)


def test_an_interrupted_comparison_goes_on_and_runs_nothing_twice(compared):
    assert compared.codes == [75, 0]
    assert compared.calls == [*RUNS[:3], *RUNS[2:]]
    before = len(compared.calls)
    assert learning_curves.main(compared.arguments) == 0
    assert len(compared.calls) == before
    seeds = [(row["label"], row["seeds"]) for row in compared.numbers["configs"]]
    assert [seeds_of for _, seeds_of in seeds] == [[0, 1], [0, 1]]


def test_the_numbers_follow_from_the_run_directories(compared, tmp_path):
    """R35: from the folders alone, by the command that stands in the report."""
    text = (compared.out / "report.html").read_text()
    (said,) = re.findall(r"<code>\S*python\S* experiments/learning_curves.py (.*)</code>", text)
    command = shlex.split(html.unescape(said).replace("FOLDER", str(tmp_path)))
    assert learning_curves.main(command) == 0
    assert json.loads((tmp_path / "numbers.json").read_text()) == compared.numbers
    assert learning_curves.main([f"--out={compared.out}", "--report_only"]) == 0
    assert json.loads((compared.out / "numbers.json").read_text()) == compared.numbers


def test_the_numbers_are_those_of_the_metrics(compared):
    numbers = compared.numbers
    with (compared.out / "points.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in numbers["final"]["rows"]:
        folders = [compared.out / "runs" / run for run in RUNS if run.startswith(row["label"])]
        last = [[r for r in read_metrics(f) if r["split"] == "validation"][-1] for f in folders]
        losses = [one["loss"] for one in last]
        assert row["per_seed"] == losses
        assert row["mean"] == pytest.approx(np.mean(losses))
        in_csv = [
            float(one["loss"])
            for one in rows
            if (one["label"], one["split"], one["step"]) == (row["label"], "validation", "3")
        ]
        assert in_csv == losses
        curve = numbers["curves"]["tokens"][row["label"]]
        assert curve["mean"][-1] == pytest.approx(row["mean"])
        assert len(curve["x"]) == 3
    pair = numbers["final"]["pairs"][0]
    assert pair["seeds"] == [0, 1]
    assert pair["least_p"] == 0.5
    assert numbers["match"]["status"] == "matched"
    assert numbers["match"]["spread"] <= 0.02
    params = [row["params"] for row in numbers["configs"]]
    assert numbers["match"]["spread"] == pytest.approx(max(params) / min(params) - 1)
    assert 0 < numbers["floor"]["per_token"] < min(r["mean"] for r in numbers["final"]["rows"])
    (pair,) = numbers["examples"]["pairs"]
    assert numbers["examples"]["num_tokens"] == 8 * 7
    assert pair["mean"] == pytest.approx(numbers["final"]["pairs"][0]["mean"], abs=1e-5)
    assert pair["low"] < pair["mean"] < pair["high"]
    assert list(numbers["horizon"]) == [row["label"] for row in numbers["configs"]]
    for found in numbers["horizon"].values():
        assert len(found["mean"]) == len(found["share"]) == 6 - 1  # before the end
        assert found["share"][-1] == pytest.approx(1)
        assert 1 <= found["within"]["0.5"] <= found["within"]["0.9"] <= 5


def test_the_floor_is_what_the_true_model_loses_on_these_sentences(compared):
    settings = runs.read(compared.out / "runs" / RUNS[0]).settings
    source = data.build_source(settings["task"]["source"], settings["data_dir"])
    losses = source.loss_of_truth([example.target for example in source.pairs("validation")])
    floor = compared.numbers["floor"]
    assert floor["per_token"] == pytest.approx(losses.mean())
    assert floor["by_position"] == pytest.approx(losses.mean(axis=0))
    assert floor["entropy"] == pytest.approx(source.entropy().per_token)
    assert floor["entropy"] != pytest.approx(floor["per_token"], rel=1e-3)
    assert "on just these sentences" in (compared.out / "report.html").read_text()


def test_the_losses_of_tokens_add_up_to_the_validation_loss(compared):
    for run in RUNS[:2]:
        run = runs.read(compared.out / "runs" / run)
        trained = load_run(run.path, None)
        found = token_losses(trained, load_task(trained))
        assert found.nll.mean() == pytest.approx(run.curve("step").y[-1], rel=1e-5)
        assert sorted(set(found.position)) == list(range(1, 8))
        assert len(found.nll) == 8 * 7  # num_validation sentences, six symbols and the end
        assert found.frequency.min() > 0
        by_position = found.by_position()
        total = (by_position.mean * by_position.num_values).sum()
        assert total == pytest.approx(found.nll.sum())


class References(HTMLParser):
    """What a page would load or link to, and its elements."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        names = ("src", "href", "srcset", "action", "data", "poster")
        self.found += [value for name, value in attributes if name in names]


def test_the_page_needs_no_network_and_escapes_what_it_shows(compared):
    text = (compared.out / "report.html").read_text()
    references = References(text)
    assert len(references.found) == 3
    assert all(found.startswith("data:image/png;base64,") for found in references.found)
    assert not {"script", "link", "iframe", "object", "base"} & set(references.tags)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    assert "default-src 'none'" in text
    assert "style-src 'sha256-" in text
    hostile = "<img src=x onerror=alert(1)>\"'"
    numbers = json.loads(json.dumps(compared.numbers).replace("lm-lstm-tiny-length=6-smoke", "@@"))
    numbers = json.loads(json.dumps(numbers).replace("@@", json.dumps(hostile)[1:-1]))
    shown = References(page.page(numbers, dict.fromkeys(("curves", "horizon", "tokens"), "data:,")))
    assert shown.tags.count("img") == 3
    for name in ("curves.png", "horizon.png", "tokens.png"):
        assert (compared.out / name).read_bytes()[:4] == b"\x89PNG"


def changed(compared, folder, run=RUNS[0], **fields):
    """A copy of a run directory with other fields in its config, "task__side" and the like."""
    shutil.copytree(compared.out / "runs" / run, folder)
    config = json.loads((folder / "config.json").read_text())
    for name, value in fields.items():
        *parents, last = name.split("__")
        block = config
        for parent in parents:
            block = block[parent]
        block[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def refusal(capsys, *arguments) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert learning_curves.main(list(arguments)) == 64
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_what_cannot_be_compared_is_refused_in_one_line(compared, tmp_path, capsys):
    first, second = (str(compared.out / "runs" / run) for run in RUNS[:2])
    out = f"--out={tmp_path / 'out'}"
    other = changed(compared, tmp_path / "data", task__source__length=7)
    said = refusal(capsys, first, other, out)
    assert "unequal data" in said
    assert first in said
    assert other in said
    other = changed(compared, tmp_path / "words", run=RUNS[1])
    for file in (tmp_path / "words" / "tokenizer").iterdir():
        file.unlink()
    source = train.check(json.loads((tmp_path / "words/config.json").read_text()))["task"]["source"]
    built = runs.data.build_source({**source, "num_symbols": 5}, "")
    runs.data.build_tokenizer({"name": "words"}, built, tmp_path / "cache").save(
        tmp_path / "words" / "tokenizer"
    )
    assert "tokenizer is 'words" in refusal(capsys, first, other, out)
    assert "not a run directory" in refusal(capsys, first, str(tmp_path), out)
    unfinished = changed(compared, tmp_path / "unfinished")
    (tmp_path / "unfinished/result.json").unlink()
    assert "is not finished" in refusal(capsys, first, unfinished, out)
    assert "one seed" in refusal(capsys, first, changed(compared, tmp_path / "twice"), out)
    assert "--cut or --allow_unmatched" in refusal(capsys, first, second, out, "--match=walltime")
    assert not (tmp_path / "out").exists()
    config = f"--config={LSTM}"
    for arguments, words in (
        ([first, config], "not both"),
        ([], "Nothing to compare"),
        ([config, "--seeds=x"], "--seeds"),
        ([config, "--seeds=1,1"], "twice"),
        ([config, "--match=steps"], "--match"),
        ([config, "--warmup_steps=0"], "--warmup_steps"),
        (["--report_only"], "holds no comparison"),
        ([config, "--bogus=1"], "--bogus"),
        ([config, f"--config={LSTM.replace('6', '7')}"], "unequal data"),
        ([config, "--config=configs/synthetic.py:smoke"], "unequal data"),
    ):
        assert words in refusal(capsys, *arguments, out)
    more = [*compared.arguments, "--seeds=3"]
    assert "another comparison (seeds differ" in refusal(capsys, *more)


@pytest.mark.parametrize("name", ["classification", "elmo"])
def test_what_has_no_loss_of_each_token_is_refused_before_it_is_trained(name, tmp_path, capsys):
    said = refusal(capsys, f"--config=configs/{name}.py:smoke", f"--out={tmp_path}")
    assert ("needs kind seq2seq" in said, list(tmp_path.iterdir())) == (True, [])


def test_unmatched_runs_are_labelled_or_cut(compared, tmp_path, capsys):
    first, folder = str(compared.out / "runs" / RUNS[0]), tmp_path / "shorter"
    second = changed(compared, folder, run=RUNS[1])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["step"] < 3]
    (folder / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    both = [first, second, "--match=tokens"]
    for flag, status, word in (
        ("--allow_unmatched", "unmatched", "Unmatched"),
        ("--cut", "cut", "Cut at the common budget"),
    ):
        out = tmp_path / status
        assert learning_curves.main([*both, flag, f"--out={out}"]) == 0
        numbers = json.loads((out / "numbers.json").read_text())
        assert numbers["match"]["status"] == status
        assert word in (out / "report.html").read_text()
    at, (one, other) = numbers["match"]["at"], numbers["final"]["rows"]
    curves = [runs.read(Path(path)).curve("tokens") for path in (first, second)]
    assert at == curves[1].x[-1] < curves[0].x[-1]
    assert one["mean"] == np.interp(at, *curves[0]) == curves[0].y[1]
    assert other["mean"] == curves[1].y[-1]
    late = [line for line in lines if json.loads(line)["step"] == 3]
    (folder / "metrics.jsonl").write_text("\n".join(late) + "\n")
    shorter = changed(compared, tmp_path / "two", run=RUNS[0])
    (tmp_path / "two/metrics.jsonl").write_text("\n".join(kept) + "\n")
    said = refusal(capsys, shorter, second, "--match=tokens", "--cut", f"--out={tmp_path / 'x'}")
    assert "first evaluated at" in said


def test_steps_are_chosen_for_tokens_flops_and_seconds(compared, capsys):
    overrides = [a for a in compared.arguments if a.startswith("--config.")]
    tokens = plan.make([LSTM, TRANSFORMER], overrides, [0], "tokens", 1)
    assert [config["settings"]["num_steps"] for config in tokens["configs"]] == [3, 3]
    flops = plan.make([LSTM, TRANSFORMER], [*overrides, "--config.num_steps=100"], [0], "flops", 1)
    steps = [config["settings"]["num_steps"] for config in flops["configs"]]
    each = [next(plan.step_costs(train.check(c["settings"]), "flops")) for c in flops["configs"]]
    assert steps[0] == 100
    assert steps[1] == round(100 * each[0] / each[1])
    measured = plan.make([LSTM, LSTM], overrides, [0], "walltime", 2)["measured_seconds_per_step"]
    assert len(measured) == 2
    assert min(measured.values()) > 0
    assert "measured over 2 steps" in capsys.readouterr().err
