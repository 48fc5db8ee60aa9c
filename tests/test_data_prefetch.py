"""Batches made ahead: in order, from any step, errors handed on, no thread left behind."""

import threading
import time

import pytest

import data
from errors import DataError


def threads():
    return [thread for thread in threading.enumerate() if "prefetch" in thread.name]


def wait_until(condition):
    deadline = time.monotonic() + 100
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 50), (7, 12), (10**9, 10**9 + 3)])
def test_steps_come_in_order_from_any_start(start, stop):
    found = list(data.prefetch(lambda step: step * step, start, stop))
    assert found == [(step, step * step) for step in range(start, stop)]
    wait_until(lambda: not threads())


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (5, 2)])
def test_no_steps_no_batches(start, stop):
    assert list(data.prefetch(lambda step: step, start, stop)) == []


def test_a_few_batches_are_made_ahead_and_no_more():
    for buffer in (1, 2, 5):
        made = []
        batches = data.prefetch(lambda step, made=made: made.append(step), 0, 100, buffer)
        next(batches)
        wait_until(lambda made=made, buffer=buffer: len(made) > buffer)
        time.sleep(0.05)
        assert buffer < len(made) <= buffer + 3
        batches.close()


def test_an_error_comes_out_where_the_batch_would_have():
    def make(step):
        if step == 3:
            raise DataError("the text of step 3")
        return step

    batches = data.prefetch(make, 0, 9)
    assert [next(batches)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"^the text of step 3$"):
        next(batches)
    wait_until(lambda: not threads())


def test_closing_early_ends_the_thread():
    batches = data.prefetch(lambda step: step, 0, 10**6)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    wait_until(lambda: not threads())
    with pytest.raises(StopIteration):
        next(batches)
