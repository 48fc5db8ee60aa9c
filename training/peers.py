"""The processes of one run watch each other: who is gone, who stands still, where all stop.

Every half second a thread in each process says how it is (a beat) in a store that all can read;
process 0 judges the beats and says one word to all. The loop itself is never waited for: a
process that hangs in a collective operation still beats, and still ends when it is told to.

A stop: a signal reaches one process. Its beat says so, process 0 passes it on, and every process
announces how many checks it has passed; its loop then passes no other until the answer is there.
The answer is the greatest of these numbers, so that all stop at the same check, and none has gone
past it. (XLA's preemption sync manager does the same, for SIGTERM alone.)

A death: a beat that stays the same for `limit` seconds is that of a process that is dead or
frozen; one whose beat goes on but whose loop stays behind the others is stuck, if it waits for its
own data only after `patience` seconds. Either ends the others with a sentence that names it.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from errors import Preempted
from training.places import Place

BEAT = 0.5  # seconds
LIMIT = 20.0  # of silence, or behind the others
PATIENCE = 600.0  # behind the others while it waits for its own data, which may come slowly
SOON = 5.0  # the same where a collective operation has failed, or a process has left the others
MOVES = ("count", "where")
WARM = 3  # checks, after which no program of the first step is compiled
LOST = 75  # exit code of those whose peer was lost: put the run back in the queue

UNHEARD: dict[str, Any] = {
    "host": "(not heard of yet)",
    "count": 0,
    "frozen": -1,
    "stop": "",
    "failed": False,
    "left": None,
    "where": ("", 0),
}


class Seen(NamedTuple):
    """The newest beat of a process, and when it came; when its loop moved, and when it left."""

    beat: dict[str, Any]
    heard: float
    moved: float
    left: float


class Store(Protocol):
    """Texts by key that all processes see; raises what it likes if it cannot be reached."""

    def put(self, key: str, text: str) -> None:
        """Replaces a text."""

    def all(self, prefix: str) -> list[str]:
        """The texts of all keys that begin so."""


class Peers:
    """One process among `number`.

    Args:
        store: what they share.
        process, number: which one this is, of how many.
        end: called from another thread with an exit code and a sentence when the run cannot go
            on, and should not return.
        asked: gives the name of the signal that asked this process to stop, or "".
        where: gives the place at which the loop is.
        home: where process 0 is, for messages.
    """

    def __init__(
        self,
        store: Store,
        process: int,
        number: int,
        end: Callable[[int, str], None],
        asked: Callable[[], str] = lambda: "",
        where: Callable[[], Place] = lambda: Place("", 0),
        beat: float = BEAT,
        limit: float = LIMIT,
        patience: float = PATIENCE,
        home: str = "",
    ) -> None:
        self.process, self.number = process, number
        self.asked, self.where, self._home = asked, where, home
        self._store, self._end = store, end
        self._beat, self._limit, self._patience = beat, limit, patience
        self._lock = threading.Condition()
        self._count, self._frozen = 0, -1  # checks passed, and what was announced of them
        self._failed = False  # a collective operation
        self.left: tuple[int, str] | None = None  # code and sentence
        self._word: dict[str, Any] = {}
        self._seen: dict[int, Seen] = {}
        self._heard, self._ticks = time.monotonic(), 0
        self._closed = threading.Event()

    def start(self) -> None:
        """Begins to watch."""
        for work in (self._talk, self._listen):
            threading.Thread(target=work, name="peers", daemon=True).start()

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()

    # ---------------------------------------------------------------- for the loop

    def check(self) -> str:
        """Passes a check, or says why all processes stop at this one."""
        with self._lock:
            while 0 <= self._frozen <= self._count and "last" not in self._word:
                self._lock.wait()
            if self._count >= self._word.get("last", self._count + 1):
                return self._word["stop"]
            self._count += 1
        return ""

    def poll(self) -> str:
        """Why the run stops, if it does; for work that one process does alone."""
        return self._word["stop"] if "last" in self._word else ""

    def failed(self) -> None:
        """Says that a collective operation has failed: somebody may be gone."""
        self._failed = True

    def leave(self, code: int, text: str) -> int | None:
        """Waits until all others have left; None if that is not to be, else their greatest code.

        Args:
            code, text: with what this process leaves.
        """
        with self._lock:
            self.left = (code, text)
        while "end" not in self._word:
            if "gone" in self._word:
                return self._word["gone"]
            if time.monotonic() - self._heard > self._limit:
                return None
            time.sleep(self._beat / 2)
        if self.process == 0:
            self._linger()
        return None

    # ---------------------------------------------------------------- for the threads

    def _talk(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(Exception):  # of the store; _listen notices the silence
                self.exchange()
            self._closed.wait(self._beat)

    def exchange(self) -> None:
        """Says how this process is, hears the word, and obeys."""
        self._ticks += 1
        with self._lock:
            beat = {
                "process": self.process,
                "host": socket.gethostname(),
                "tick": self._ticks,
                "count": self._count,
                "frozen": self._frozen,
                "stop": self.asked(),
                "failed": self._failed,
                "left": self.left,
                "where": self.where(),
            }
        self._store.put(f"beat/{self.process}", json.dumps(beat))
        if self.process == 0:
            beats = [json.loads(text) for text in self._store.all("beat/")]
            word = self._judge({beat["process"]: beat for beat in beats}, time.monotonic())
            self._store.put("word/0", json.dumps(word))
        else:
            word = json.loads("".join(self._store.all("word/")) or "{}")
        self._heard = time.monotonic()
        self._obey(word)

    def _obey(self, word: dict[str, Any]) -> None:
        with self._lock:
            self._word = word
            if word.get("stop") and self._frozen < 0:
                self._frozen = self._count
            self._lock.notify_all()
            if "end" not in word or self.left is not None:
                return
            _, code, sentence = word["end"]
            self.left = (code, sentence)
        if self.process == 0:
            self._linger()
        else:
            self.exchange()
        self._end(code, sentence)

    def _linger(self) -> None:
        """The store goes with process 0: first the others must have heard why."""
        deadline = time.monotonic() + SOON
        time.sleep(3 * self._beat)  # a culprit that has left listens for this, too
        while time.monotonic() < deadline and not self._all_left(but=self._word["end"][0]):
            time.sleep(self._beat / 2)
            self.exchange()

    def _all_left(self, but: int = -1) -> bool:
        return all(seen.beat["left"] or p == but for p, seen in self._seen.items())

    def _listen(self) -> None:
        """Ends this process when process 0 does not answer."""
        while not self._closed.wait(self._beat):
            silence = time.monotonic() - self._heard
            if silence > self._limit and self.left is None:
                self._end(LOST, f"Process 0{self._home} has not answered for {silence:.0f} s.")

    def _judge(self, beats: dict[int, dict], now: float) -> dict[str, Any]:
        """The word of process 0, from the newest beat of each process."""
        for process in range(self.number):
            beat = beats.get(process, UNHEARD)
            self._seen[process] = _updated(self._seen.get(process), beat, now)
        newest = [seen.beat for seen in self._seen.values()]
        word: dict[str, Any] = {
            key: self._word[key] for key in ("stop", "last", "end") if key in self._word
        }
        asked = [beat["stop"] for beat in newest if beat["stop"]]
        if asked:
            word.setdefault("stop", asked[0])
        frozen = [beat["frozen"] for beat in newest]
        if "stop" in word and min(frozen) >= 0:
            word["last"] = max(frozen)
        if self._all_left():
            return word | {"gone": max(beat["left"][0] for beat in newest)}
        culprit = None if "end" in word else self._culprit(now)
        return word if culprit is None else word | {"end": culprit}

    def _culprit(self, now: float) -> tuple[int, int, str] | None:
        """(process, exit code, sentence) of the one that keeps the others from going on."""
        ahead = max(seen.beat["count"] for seen in self._seen.values())
        hurt = any(seen.beat["failed"] for seen in self._seen.values())
        silent = min(SOON, self._limit) if hurt else self._limit
        for process, (beat, heard, moved, left) in self._seen.items():
            name, where = f"Process {process} on {beat['host']}", Place(*beat["where"])
            behind = WARM <= beat["count"] < ahead and beat["frozen"] < 0 and where.line
            if beat["left"]:
                code, text = beat["left"]
                # With a stop, to which all have agreed, each ends by itself: process 0 saves.
                if code not in (0, Preempted.exit_code) and now - left > SOON:
                    return process, code, f"{name} has left: {text}"
            elif now - heard > silent:
                text = f"has not been heard of for {now - heard:.0f} s: it is dead or frozen."
                return process, LOST, f"{name} {text}"
            elif behind and now - moved > (self._patience if where.reads else self._limit):
                text = f"has stood still for {now - moved:.0f} s in {where.line}"
                return process, LOST, f"{name} {text}, and the others wait for it."
        return None


def _updated(old: Seen | None, beat: dict[str, Any], now: float) -> Seen:
    if old is None:
        return Seen(beat, now, now, now)
    return Seen(
        beat,
        old.heard if beat == old.beat else now,
        old.moved if all(beat[name] == old.beat[name] for name in MOVES) else now,
        old.left if beat["left"] == old.beat["left"] else now,
    )
