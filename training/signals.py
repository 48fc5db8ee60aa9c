"""A stop that was asked for by a signal, to be looked at wherever the work can be left."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopFlag:
    """Remembers that SIGTERM, SIGUSR1 or Ctrl-C asked the run to stop; a context manager.

    Inside it these signals no longer kill: the loop polls check() between steps, during
    evaluation and decoding and while it waits for data, and saves before it leaves. A Ctrl-C
    after any earlier request interrupts at once. Outside the main thread, where Python allows
    no handlers, only request() sets the flag.
    """

    def __init__(self):
        self.reason = ""  # name of the first signal
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return bool(self.reason)

    def request(self, reason: str) -> None:
        """Asks for a stop; the first reason is kept."""
        self.reason = self.reason or reason

    def check(self) -> None:
        """Raises Preempted if a stop was requested; cheap enough for every step."""
        if self.reason:
            raise Preempted(f"Stopped by {self.reason}.")

    def poll(self) -> None:
        """check(), for work that one of several processes does alone."""
        self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        if not self.requested:
            # os.write, because print may be interrupted by this very handler.
            again = " (once more: stop at once)" if number == signal.SIGINT else ""
            os.write(2, f"{name}: saving and stopping{again}\n".encode())
        self.request(name)
