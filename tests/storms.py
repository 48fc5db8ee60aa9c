"""Storms: many trials of one evil, counted, and bugs planted to see that a storm finds them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

FAILURES = (Exception, pytest.fail.Exception)  # which is no Exception
Plant = Callable[[pytest.MonkeyPatch], None]


class Storm:
    """Counts trials and prints "NAME: 20 tried, 20 passed"; a context manager.

    Args:
        name: of what is tried.
        least: a storm of fewer trials than this has not passed.
    """

    def __init__(self, name: str, least: int = 1) -> None:
        self.name, self.least = name, least
        self.tried, self.failed = 0, []

    @contextmanager
    def trial(self, what: object) -> Iterator[None]:
        """One trial; if it fails the others go on, and it is named at the end."""
        self.tried += 1
        try:
            yield
        except FAILURES as error:
            self.failed.append(f"{what}: {type(error).__name__}: {str(error)[:400]}")

    def __enter__(self) -> "Storm":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            passed = self.tried - len(self.failed)
            print(f"\nstorm {self.name}: {self.tried} tried, {passed} passed")
            assert not self.failed, "\n".join(self.failed[:10])
            assert self.tried >= max(1, self.least)


def assert_all_caught(name: str, check: Callable[[], object], bugs: Mapping[str, Plant]) -> None:
    """Plants one bug after the other; each must make the check fail, which passes without."""
    check()
    missed = []
    for bug, plant in bugs.items():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            try:
                check()
            except FAILURES:
                continue
        missed.append(bug)
    print(f"\nstorm {name}: {len(bugs)} bugs planted, {len(bugs) - len(missed)} caught")
    assert bugs
    assert not missed, missed
