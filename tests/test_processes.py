"""train.py as several processes that make one run."""

import signal
import socket
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import train
from tests import trainer_cases
from tests.trainer_cases import arguments, assert_same_outcome, journal, outcome, settings_of
from tests.trainer_processes import Command, Hit
from training import checkpoint_reader, compilation, connecting, distributed
from training.metrics import read_metrics

FIELDS = {"num_steps": 12, "log_every": 3, "eval_every": 5, "save_every": 4}
FAST = pytest.mark.timeout(600)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(argv: list[str], folder: Path, number: int, hits: dict[int, Hit]) -> list[Command]:
    """Processes of one run in folder/run; `hits` by process."""
    together = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={number}"]
    return [
        Command(
            [*argv, *together, f"--process_id={i}"], folder / "run", folder / f"{i}", hits.get(i)
        )
        for i in range(number)
    ]


def finish(commands: list[Command], codes: list[int]) -> None:
    for command, code in zip(commands, codes, strict=True):
        assert command.wait() == code, [other.stderr for other in commands]


def one_process(argv: list[str], folder: Path) -> dict[str, Any]:
    """What the same command comes to in one process, in this one."""
    with pytest.MonkeyPatch.context() as patch:
        trainer_cases.share_programs(patch)
        train.train(settings_of(argv), folder)
    return outcome(folder)


def assert_close(found: Path, expected: Path, tolerance: float) -> None:
    """Checkpoints and rows of two runs."""
    for step in checkpoint_reader.good_steps(expected / "checkpoints"):
        trees = [checkpoint_reader.load(run / "checkpoints", step)[1] for run in (found, expected)]
        mine, theirs = (jax.tree.leaves(tree) for tree in trees)
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    mine, theirs = (
        [row for row in read_metrics(run) if row["split"] != "goodput"] for run in (found, expected)
    )
    for one, other in zip(mine, theirs, strict=True):
        for name, value in trainer_cases.without_times(other).items():
            if not isinstance(value, str):
                assert one[name] == pytest.approx(value, rel=tolerance, nan_ok=True), name


@FAST
def test_two_processes_are_one_run_that_a_signal_to_one_of_them_stops(tmp_path: Path) -> None:
    """And that one process goes on with, to the last bit; process 0 alone writes and speaks."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv = arguments(data_dir, "lstm", **FIELDS, parallel__num_devices=2)
    expected = one_process(argv, tmp_path / "alone")
    commands = start(argv, tmp_path, 2, {1: Hit(signal.SIGTERM, "step", 5)})
    finish(commands, [75, 75])
    assert "error: Stopped by SIGTERM." in commands[0].stderr.splitlines()
    assert commands[1].stderr.splitlines()[0] == "SIGTERM: saving and stopping"
    assert "step" not in commands[1].stderr
    run = tmp_path / "run"
    stopped = journal(run, "save")[-1]["step"]
    assert 5 <= stopped < 12
    assert [line["event"] for line in journal(run)].count("start") == 1
    assert journal(run)[-1]["code"] == 75
    assert_same_outcome(one_process(argv, run), expected)


MESHES = [
    pytest.param(2, "(1,2,1)", id="2-fsdp"),
    pytest.param(4, "(2,1,2)", id="4-data-tensor"),
    pytest.param(4, None, id="4-pmap"),
]


@pytest.mark.heavy
@FAST
@pytest.mark.parametrize(("number", "mesh"), MESHES)
def test_many_processes_come_to_what_one_process_comes_to(
    tmp_path: Path, number: int, mesh: str | None
) -> None:
    """Checkpoints of parameters that are spread over processes, rows, scores and texts."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    fields = FIELDS | {"model__dropout_rate": 0.0, "parallel__num_devices": number}
    if mesh:
        fields |= {"parallel__strategy": "mesh", "parallel__mesh": mesh}
    # Not a Transformer: Adam makes steps of what rounding leaves of the gradient of its key
    # biases, which is zero.
    argv = arguments(data_dir, "lstm", **fields)
    one_process(argv, tmp_path / "alone")
    commands = start(argv, tmp_path, number, {})
    finish(commands, [0] * number)
    assert "test bleu" in commands[0].stdout
    assert all("bleu" not in command.stdout for command in commands[1:])
    assert_close(tmp_path / "run", tmp_path / "alone", 2e-5)
    results = [outcome(tmp_path / name)["result"] for name in ("run", "alone")]
    assert results[0]["samples"] == results[1]["samples"]
    assert results[0]["scores"] == pytest.approx(results[1]["scores"], rel=1e-4)


@pytest.mark.heavy
@FAST
def test_a_run_goes_on_with_other_numbers_of_processes_and_meshes(tmp_path: Path) -> None:
    """A mesh of four processes, pmap of two, then one; each takes up the state that was saved."""
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    # A schedule that is the same whatever num_steps is.
    fields = FIELDS | {"model__dropout_rate": 0.0, "optimizer__schedule__name": "constant"}
    whole = arguments(data_dir, "lstm", **fields | {"parallel__num_devices": 1})
    one_process(whole, tmp_path / "alone")
    for number, steps, options in (
        (4, 4, {"parallel__strategy": "mesh", "parallel__mesh": "(1,4,1)"}),
        (2, 8, {}),
    ):
        more = {"num_steps": steps, "parallel__num_devices": number, **options}
        commands = start(arguments(data_dir, "lstm", **fields | more), tmp_path, number, {})
        finish(commands, [0] * number)
    train.train(settings_of(whole), tmp_path / "run")
    assert [line["step"] for line in journal(tmp_path / "run", "restore")] == [0, 4, 8]
    _, found, _ = checkpoint_reader.load(tmp_path / "run/checkpoints")
    _, expected, _ = checkpoint_reader.load(tmp_path / "alone/checkpoints")
    leaves = (jax.tree.leaves(tree["params"]) for tree in (found, expected))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)  # a step: 1e-3


# Who is hit by what, the exit codes, and what the survivor says.
LOSSES = [
    pytest.param({1: Hit(signal.SIGKILL, "step", 8)}, [75, -9], "Process 1 on ", id="dead"),
    pytest.param({0: Hit(signal.SIGKILL, "step", 8)}, [-9, 75], "Process 0 at ", id="dead-first"),
    pytest.param(
        {1: Hit(signal.SIGSTOP, "step", 8)}, [75, None], "is dead or frozen.", id="frozen"
    ),
    pytest.param({1: Hit(0, "save", 2)}, [75, 75], "has stood still", id="stuck"),
]


@pytest.mark.heavy
@FAST
@pytest.mark.parametrize(("hits", "codes", "sentence"), LOSSES)
def test_a_lost_process_ends_the_other_within_30_s_and_is_named(
    tmp_path: Path, hits: dict[int, Hit], codes: list, sentence: str
) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    endless = {"num_steps": 10**6, "eval_every": 10**6, "save_every": 4, "log_every": 1}
    argv = arguments(data_dir, "lstm", **endless, parallel__num_devices=2)
    commands = start(argv, tmp_path, 2, hits)
    victim = next(iter(hits))
    survivor = commands[1 - victim]
    metrics = tmp_path / "run/metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        time.sleep(0.1)
    began = time.monotonic()
    assert survivor.wait(60) == 75, survivor.stderr
    seconds = time.monotonic() - began
    if codes[victim] is None:
        commands[victim].send(signal.SIGKILL)
    assert commands[victim].wait() == (codes[victim] or -signal.SIGKILL)
    last = survivor.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last
    assert "Process" in last
    assert seconds < 30
    if victim:  # process 0 had the time to end the save that it had begun
        assert checkpoint_reader.load(tmp_path / "run/checkpoints")[0] >= 4
    print(f"{seconds:.1f} s: {last}")


@pytest.mark.heavy
@FAST
def test_a_signal_while_process_0_decodes_and_another_config_stop_both(tmp_path: Path) -> None:
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    argv = arguments(data_dir, "lstm", **FIELDS, parallel__num_devices=2)
    commands = start(argv, tmp_path, 2, {0: Hit(signal.SIGTERM, "decode")})
    finish(commands, [75, 75])
    assert commands[0].stderr.splitlines()[-1] == "error: Stopped by SIGTERM."
    together = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
    commands = [
        Command(
            [*argv, *together, f"--process_id={i}", *more], tmp_path / "run", tmp_path / f"b{i}"
        )
        for i, more in enumerate([[], ["--config.optimizer.learning_rate=0.5"]])
    ]
    finish(commands, [64, 64])
    said = "config.optimizer.learning_rate is 0.5 in this process, but 0.01 in process 0."
    assert commands[1].stderr.splitlines()[-1].startswith(f"error: {said}")
    assert f"Process 1 on {socket.gethostname()} has left: {said}" in commands[0].stderr


ABSENT = [
    (["--process_id=1"], "Nothing answers at --coordinator=127.0.0.1:{port} within 1 s."),
    (["--process_id=0"], "Not all processes came within 1 s."),
]


@FAST
@pytest.mark.parametrize(("flags", "sentence"), ABSENT)
def test_a_process_that_stays_alone_says_so_in_a_line(
    tmp_path: Path, flags: list[str], sentence: str
) -> None:
    port = free_port()
    argv = arguments(tmp_path, "lstm")
    argv += [f"--coordinator=127.0.0.1:{port}", "--num_processes=2", "--coordinator_timeout=1"]
    command = Command([*argv, *flags], tmp_path / "run", tmp_path / "output")
    assert command.wait() == 75  # the others may come the next time
    assert command.stderr == f"error: {sentence.format(port=port)}\n"
    assert not (tmp_path / "run").exists()


REFUSED = [
    (jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out."), 75),
    (jax.errors.JaxRuntimeError("UNKNOWN: Failed to start the server."), 75),
    (OSError(113, "No route to host"), 75),
    (RuntimeError("Retry failed with all attempts exhausted"), 75),
    (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Unexpected task."), 64),
    (ValueError("coordinator_address should be defined."), 64),
    (RuntimeError("Kubernetes API Error: 403 - Forbidden"), 64),
]


@pytest.mark.parametrize(("error", "code"), REFUSED)
def test_what_may_pass_is_to_be_tried_again(error: Exception, code: int) -> None:
    refused = connecting._refused("auto", error)
    assert refused.exit_code == code
    assert str(refused).startswith("--coordinator=auto: ")
    assert ("Give --coordinator=HOST:PORT" in str(refused)) == (code == 64)


FLAGS = [
    (["--num_processes=2"], "--num_processes and --process_id need --coordinator=HOST:PORT."),
    (["--coordinator=auto", "--process_id=1"], "--coordinator=auto finds --num_processes and"),
    (["--coordinator=here"], "--coordinator must be auto or HOST:PORT, got 'here'."),
    (["--coordinator=here:0"], "--coordinator must be auto or HOST:PORT, got 'here:0'."),
    (["--coordinator=h:1"], "--coordinator=HOST:PORT needs --num_processes and --process_id."),
    (["--coordinator=h:1", "--num_processes=2", "--process_id=2"], "--process_id must be from 0"),
    (["--coordinator=h:1", "--num_processes=2", "--process_id=x"], "Argument --process_id: inv"),
]


@pytest.mark.parametrize(("flags", "sentence"), FLAGS)
def test_flags_that_do_not_go_together_are_refused(
    tmp_path: Path, flags: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    argv = [*arguments(tmp_path, "lstm"), f"--workdir={tmp_path / 'run'}", *flags]
    assert train.main(argv) == 64
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not (tmp_path / "run").exists()


def test_processes_of_cpus_read_no_program_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its collective operations would be in no order; see keep_compiled()."""
    changed = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    monkeypatch.setattr(distributed, "number", lambda: 2)
    compilation.keep_compiled("folder")
    assert changed == {"jax_enable_compilation_cache": False}
