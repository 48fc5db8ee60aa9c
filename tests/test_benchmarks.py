"""The benchmarks measure what they say: the harness and the main job."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import harness, machine, main_job

REPO = Path(__file__).resolve().parent.parent


class Clock:
    """Time that passes only when a side works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def side(self, name: str, *durations: float):
        """Work that takes these times, one after another, and again."""
        remaining: list[float] = []

        def work() -> None:
            if not remaining:
                remaining.extend(durations)
            self.now += remaining.pop(0)
            self.calls.append(name)

        return work


# ------------------------------------------------------------------ harness


def test_sides_take_turns_in_alternating_order():
    clock = Clock()
    sides = {"a": clock.side("a", 1.0), "b": clock.side("b", 2.0)}
    timing = harness.alternate(sides, rounds=3, warm_up=1, per_turn=1, clock=lambda: clock.now)
    turns = "".join(clock.calls[::2])
    assert turns == "".join(clock.calls[1::2]), "each turn is an untimed and a timed call"
    assert turns in ("abbaabba", "baabbaab")
    assert timing.seconds == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_the_first_call_of_a_turn_is_not_timed():
    clock = Clock()
    sides = {"a": clock.side("a", 9.0, 1.0, 2.0)}
    timing = harness.alternate(sides, rounds=2, warm_up=0, per_turn=2, clock=lambda: clock.now)
    assert timing.seconds == {"a": [1.5, 1.5]}


def test_the_median_is_of_ratios_and_not_the_ratio_of_medians():
    timing = harness.Timing({"peer": [2.0, 30.0, 8.0], "ours": [1.0, 10.0, 2.0]})
    row = harness.compared("x", timing, "peer", "ours", units=16, unit="tokens", goal=3.5)
    assert row.value == 3.0  # of 2, 3, 4; the ratio of medians is 4
    assert row.spread == (2.5, 3.5)
    assert row.reached is False
    assert row.columns == {"ours": "2000.0 ms, 8 tokens/s", "peer": "8000.0 ms, 2 tokens/s"}


@pytest.mark.parametrize(
    ("value", "goal", "at_most", "reached"),
    [
        (1.2, 1.2, False, True),
        (1.19, 1.2, False, False),
        (2.9, 3.0, True, True),
        (3.1, 3.0, True, False),
        (None, 1.0, False, None),
        (1.0, None, False, None),
    ],
)
def test_a_goal_is_a_lower_or_an_upper_limit(value, goal, at_most, reached):
    assert harness.Row("x", {}, value, None, goal, at_most).reached is reached


def test_further_sides_have_a_cell_of_their_own():
    timing = harness.Timing({"ours": [1.0], "peer": [2.0], "peer, compiled": [1.5]})
    row = harness.compared("x", timing, "peer", "ours", 1, "tokens", None)
    assert row.value == 2.0
    assert row.columns["peer, compiled"] == "1500.0 ms, 1.50x"


def test_table_has_a_cell_for_every_column_of_any_row():
    rows = [
        harness.Row("a", {"ours": "1 s", "peer": "2 s"}, 2.0, (1.5, 2.5), 1.0),
        harness.Row("b", {"ours": "3 s", "note": "no peer"}),
        harness.Row("c", {}, 2.5, goal=3.0, at_most=True, unit=" GiB"),
    ]
    assert harness.render(rows).splitlines() == [
        "| what | ours | peer | note | result | goal |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a | 1 s | 2 s |  | 2.00x (1.50-2.50) | >= 1x: reached |",
        "| b | 3 s |  | no peer |  |  |",
        "| c |  |  |  | 2.50 GiB | <= 3 GiB: reached |",
    ]


def test_a_rerun_replaces_its_own_section_only(tmp_path):
    path = tmp_path / "RESULTS.md"
    for title, body in (("One", "old\n\n### part"), ("Two", "2"), ("Three", "3"), ("One", "new")):
        harness.save_section(title, body, path)
    text = path.read_text(encoding="utf-8")
    assert text == harness.TITLE + "\n## One\n\nnew\n\n## Two\n\n2\n\n## Three\n\n3\n"
    assert list(tmp_path.iterdir()) == [path]
    harness.save_section("Two", "2", path)
    assert path.read_text(encoding="utf-8") == text, "saving the same again changes nothing"


@pytest.mark.parametrize(
    ("arguments", "busy", "saved"),
    [
        ([], 0.0, True),
        (["--no_save"], 0.0, False),
        ([], 1.0, False),
        (["--busy"], 1.0, True),
    ],
)
def test_numbers_of_a_busy_machine_are_not_kept_unless_asked(
    tmp_path, monkeypatch, capsys, arguments, busy, saved
):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "RESULTS.md")
    options = harness.arguments("doc", rounds=1).parse_args(arguments)
    harness.report("Speed", [harness.Row("a", {})], ["A note."], options, busy)
    assert harness.RESULTS.exists() is saved
    printed = capsys.readouterr()
    assert "| a |" in printed.out
    assert ("Not saved: other programs use 1.00 cores" in printed.err) is (busy > 0 and not saved)
    if saved:
        text = harness.RESULTS.read_text(encoding="utf-8")
        assert f"## Speed: {machine.processor()}\n" in text
        assert machine.describe() in text
        assert machine.commit() in text


def test_another_processor_has_a_section_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "RESULTS.md")
    options = harness.arguments("doc").parse_args([])
    for processor, what in (("one", "first"), ("other", "second"), ("one", "third")):
        monkeypatch.setattr(machine, "processor", lambda processor=processor: processor)
        harness.report("Speed", [harness.Row(what, {})], [], options, 0.0)
    titles = [x for x in harness.RESULTS.read_text("utf-8").splitlines() if x.startswith("#")]
    assert titles[1:] == ["## Speed: one", "## Speed: other"]
    harness.report("Speed", [harness.Row("fourth", {})], [], options, 0.0, on="a GPU")
    assert "## Speed: a GPU\n" in harness.RESULTS.read_text("utf-8")
    assert "| first |" not in harness.RESULTS.read_text("utf-8")


def test_the_machine_is_described():
    assert f"{machine.cores()} cores" in machine.describe()
    assert f"jax {jax.__version__}" in machine.describe()
    assert machine.cores_used_by_others(0.05) >= 0.0


def test_command_is_what_one_would_type():
    argv = ["/some/where/benchmarks/translation.py", "--rounds=3", "--config", "a b"]
    assert harness.command(argv) == "python -m benchmarks.translation --rounds=3 --config 'a b'"


def test_all_benchmarks_are_listed_and_have_help():
    from benchmarks.__main__ import NAMES

    assert set(NAMES) == {
        "training_step",
        "families",
        "recurrence",
        "translation",
        "generation",
        "pipeline",
        "diagnostics",
        "memory_options",
        "main_job",
        "heads",
        "saving",
    }
    command = [sys.executable, "-m", "benchmarks", "--only=nothing"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown benchmark 'nothing'; known: training_step, families, recurr" in done.stderr


# ------------------------------------------------------------------ the main job


def write_program(folder: Path, text: str) -> None:
    (folder / "train.py").write_text(text, encoding="utf-8")


STEPS_AND_WAITS = """
import pathlib, sys, time
workdir = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).split("=")[1])
block = bytearray(256 * 2**20)
workdir.mkdir()
time.sleep(0.2)
(workdir / "metrics.jsonl").write_text("{}")
time.sleep(0 if "--end" in sys.argv else 60)
"""


def test_main_job_is_timed_to_its_first_row_and_its_memory_is_taken(tmp_path, monkeypatch):
    write_program(tmp_path, STEPS_AND_WAITS)
    monkeypatch.setattr(main_job, "ROOT", tmp_path)
    job = main_job.Job("c.py", tmp_path / "data", tmp_path / "a")
    assert 0.2 < job.seconds_to_first_step() < 50
    job = main_job.Job("c.py", tmp_path / "data", tmp_path / "b", ("--end",))
    assert 0.25 < job.peak_gib() < 1.0


def test_a_main_job_that_fails_says_why(tmp_path, monkeypatch):
    write_program(tmp_path, "import sys; sys.exit('error: no such thing')")
    monkeypatch.setattr(main_job, "ROOT", tmp_path)
    for name in ("seconds_to_first_step", "peak_gib"):
        job = main_job.Job("c.py", tmp_path / "data", tmp_path / name)
        with pytest.raises(main_job.Failed, match=r"(?s)config=c.py left with 1.*no such thing"):
            getattr(job, name)()
