"""Processes that watch each other, as threads with a dictionary between them."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import data
from training import peers
from training.peers import LOST, Peers
from training.places import Place, place_of

REPO = Path(__file__).resolve().parent.parent
BEAT = 0.002


class Dictionary:
    """A store in one process."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts, self.dead = texts, False

    def put(self, key: str, text: str) -> None:
        assert not self.dead
        self.texts[key] = text

    def all(self, prefix: str) -> list[str]:
        assert not self.dead
        return [text for key, text in list(self.texts.items()) if key.startswith(prefix)]


class Lockstep:
    """Collective steps: step n + 1 begins nowhere before step n has begun everywhere."""

    def __init__(self, number: int) -> None:
        self.begun = [0] * number
        self.moved = threading.Condition()

    def step(self, process: int) -> None:
        with self.moved:
            self.begun[process] += 1
            self.moved.notify_all()
            mine = self.begun[process]
            assert self.moved.wait_for(lambda: min(self.begun) >= mine - 1, 20)


class Group:
    """Processes that watch each other until close()."""

    def __init__(self, number: int, limit: float = 20.0, **options: Any) -> None:
        texts: dict[str, str] = {}
        self.stores, self.asked = [Dictionary(texts) for _ in range(number)], [""] * number
        self.ends: dict[int, tuple[int, str]] = {}
        self.ended = [threading.Event() for _ in range(number)]
        options |= {"beat": BEAT, "limit": limit, "home": " at H:1"}
        self.peers = [
            Peers(store, i, number, self._end_of(i), lambda i=i: self.asked[i], **options)
            for i, store in enumerate(self.stores)
        ]
        for each in self.peers:
            each.start()

    def _end_of(self, process: int) -> Callable[[int, str], None]:
        def end(code: int, sentence: str) -> None:
            self.ends.setdefault(process, (code, sentence))
            self.ended[process].set()
            self.peers[process].close()

        return end

    def wait_for_end(self, process: int) -> tuple[int, str]:
        assert self.ended[process].wait(20), "nothing ended it"
        return self.ends[process]

    def close(self) -> None:
        for each in self.peers:
            each.close()


def run_until_stopped(group: Group, seed: int) -> list[tuple[int, str]]:
    """The checks that each process passed, and why it stopped."""
    generator, number = random.Random(seed), len(group.peers)
    signalled = {generator.randrange(number): generator.randint(1, 30) for _ in range(seed % 2 + 1)}
    pauses = [[generator.uniform(0, 0.004) for _ in range(10)] for _ in range(number)]
    steps, found = Lockstep(number), [(-1, "")] * number

    def loop(process: int) -> None:
        for passed in range(10_000):
            if passed == signalled.get(process):
                group.asked[process] = f"SIGNAL to {process}"
            if reason := group.peers[process].check():
                found[process] = (passed, reason)
                return
            time.sleep(pauses[process][passed % 10])
            steps.step(process)

    threads = [threading.Thread(target=loop, args=(i,), daemon=True) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@pytest.mark.parametrize("number", [2, 5])
def test_a_signal_to_any_process_stops_all_at_the_same_check(number: int) -> None:
    for seed in range(12):
        group = Group(number)
        found = run_until_stopped(group, seed)
        assert len(set(found)) == 1, found
        assert found[0][1].startswith("SIGNAL to ")
        assert all(each.poll() == found[0][1] for each in group.peers)
        group.close()
        assert not group.ends


def test_one_that_is_not_heard_of_ends_the_others_and_is_named() -> None:
    group = Group(3, limit=0.5)
    time.sleep(0.05)
    group.peers[2].close()
    for survivor in (0, 1):
        code, sentence = group.wait_for_end(survivor)
        assert code == LOST == 75
        assert sentence.startswith("Process 2 on ")
        assert sentence.endswith("it is dead or frozen.")


def test_process_0_that_does_not_answer_is_named() -> None:
    group = Group(2, limit=0.5)
    time.sleep(0.05)
    group.peers[0].close()
    group.stores[1].dead = True
    code, sentence = group.wait_for_end(1)
    assert code == 75
    assert sentence.startswith("Process 0 at H:1 has not answered for")
    group.close()


SECONDS = itertools.count()
PLACES = [  # where the last process is, how long data may take, and whether it is taken for stuck
    pytest.param(lambda: Place("step.py:7", 5), 0.5, True, id="waits"),
    pytest.param(lambda: Place("", 5), 0.5, False, id="compiles"),
    pytest.param(lambda: Place("step.py:7", next(SECONDS)), 0.5, False, id="works"),  # slowly
    pytest.param(lambda: Place("data/prefetch.py:7", 5), peers.PATIENCE, False, id="reads"),
    pytest.param(lambda: Place("data/prefetch.py:7", 5), 0.6, True, id="reads-for-ever"),
]


@pytest.mark.parametrize(("where", "patience", "stuck"), PLACES)
def test_one_that_stays_behind_is_stuck_if_it_waits(
    where: Callable[[], Place], patience: float, stuck: bool
) -> None:
    group = Group(2, limit=0.5, patience=patience, where=where)
    for process, checks in ((1, peers.WARM), (0, peers.WARM + 1)):
        for _ in range(checks):
            group.peers[process].check()
    if stuck:
        code, sentence = group.wait_for_end(0)
        assert code == 75
        assert sentence.startswith("Process 1 on ")
        assert "has stood still for" in sentence
        assert sentence.endswith(f" in {where().line}, and the others wait for it.")
    else:
        time.sleep(0.8)
        assert not group.ends
    group.close()


def test_a_long_step_of_all_is_nobodys_fault() -> None:
    group = Group(3, limit=0.5, where=lambda: Place("step.py:1", 5))
    for each in group.peers:
        for _ in range(5):
            each.check()
    time.sleep(0.8)
    assert not group.ends
    group.close()


@pytest.mark.parametrize("process", [0, 1])
def test_an_error_of_one_is_what_the_others_end_with(
    process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "SOON", 0.2)
    group = Group(3)
    assert group.peers[process].leave(65, "a.tsv, row 7: no tab.") is None
    for other in {0, 1, 2} - {process}:
        code, sentence = group.wait_for_end(other)
        assert code == 65
        assert sentence.startswith(f"Process {process} on ")
        assert sentence.endswith(" has left: a.tsv, row 7: no tab.")
    group.close()


@pytest.mark.parametrize("code", [0, 75])
def test_all_wait_for_the_last_one_and_leave_in_peace(code: int) -> None:
    group, left = Group(3), []

    def leave(process: int) -> None:
        left.append(group.peers[process].leave(0, ""))

    threads = [threading.Thread(target=leave, args=(i,)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert not left
    assert group.peers[0].leave(code, "") == code
    for thread in threads:
        thread.join(20)
    assert left == [code, code]
    assert not group.ends
    group.close()


def test_who_saves_after_a_stop_is_not_ended_by_those_who_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "SOON", 0.1)
    group = Group(2)
    leaves = threading.Thread(target=group.peers[1].leave, args=(75, "Stopped by SIGTERM."))
    leaves.start()
    time.sleep(0.6)
    assert not group.ends
    group.peers[0].leave(75, "Stopped by SIGTERM.")
    leaves.join(20)
    assert not group.ends
    group.close()


def test_a_save_may_take_as_long_as_it_likes() -> None:
    names: dict[str, Any] = {}
    code = "def wait(event):\n    event.wait()"
    exec(compile(code, str(REPO / "training/checkpoints.py"), "exec"), names)
    written = threading.Event()
    thread = threading.Thread(target=names["wait"], args=(written,))
    thread.start()
    time.sleep(0.05)
    place = place_of(thread.ident)
    written.set()
    thread.join()
    assert place.line == ""


def test_a_batch_that_does_not_come_is_waited_for_where_data_are_read() -> None:
    made = threading.Event()
    thread = threading.Thread(target=lambda: list(data.prefetch(lambda _: made.wait(), 0, 1)))
    thread.start()
    deadline = time.monotonic() + 20
    while not place_of(thread.ident).reads and time.monotonic() < deadline:
        time.sleep(0.01)  # Grain is imported
    place = place_of(thread.ident)
    made.set()
    thread.join()
    assert place.reads
    assert place.line.startswith("data/prefetch.py:")


def test_the_place_of_a_thread_is_told_by_our_code() -> None:
    asleep = threading.Event()

    def wait_here() -> None:
        asleep.wait()

    thread = threading.Thread(target=wait_here)
    thread.start()
    place = place_of(thread.ident)
    asleep.set()
    thread.join()
    line = wait_here.__code__.co_firstlineno + 1
    assert place.line in (f"tests/test_peers.py:{line}", f"tests/test_peers.py:{line - 1}")
