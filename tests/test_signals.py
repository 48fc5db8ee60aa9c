"""A signal asks for a stop; only a second Ctrl-C interrupts."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from errors import Preempted
from training.signals import SIGNALS, StopFlag


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_the_flag_and_nothing_else(
    number: signal.Signals, capfd: pytest.CaptureFixture
) -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    with StopFlag() as stop:
        stop.check()
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(Preempted, match=rf"Stopped by {number.name}\."):
            stop.check()
        assert Preempted.exit_code == 75
    assert [signal.getsignal(s) for s in SIGNALS] == before
    err = capfd.readouterr().err
    assert err.startswith(f"{number.name}: saving and stopping")
    assert err.count("\n") == 1


def test_handlers_come_back_after_an_error() -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    with pytest.raises(KeyError), StopFlag():
        raise KeyError
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_ctrl_c_after_any_request_interrupts_at_once() -> None:
    for first in SIGNALS:
        with StopFlag() as stop:
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), signal.SIGTERM)  # a second one of the others does not
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert stop.reason == first.name
    print(f"{len(SIGNALS)} cases")


def test_works_outside_the_main_thread() -> None:
    seen = []

    def work() -> None:
        with StopFlag() as stop:
            stop.request("a test")
            seen.append(stop.reason)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["a test"]


def test_signals_reach_a_process_that_sleeps() -> None:
    code = """
import sys, time
sys.path.insert(0, sys.argv[1])
from errors import Preempted
from training.signals import StopFlag
with StopFlag() as stop:
    print("ready", flush=True)
    try:
        while True:
            time.sleep(0.01)
            stop.check()
    except Preempted as error:
        sys.exit(error.exit_code)
"""
    repo = str(Path(__file__).resolve().parent.parent)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        command = [sys.executable, "-c", code, repo]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(number)
            assert process.wait(timeout=120) == 75
