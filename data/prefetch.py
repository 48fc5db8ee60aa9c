"""Making batches ahead of the step that needs them, in a thread of Grain's."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class _Range:
    """Steps start to stop - 1 as a data source of Grain."""

    def __init__(self, start: int, stop: int):
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, place: int) -> int:
        return self.start + place


def prefetch(
    batch_function: Callable[[int], Any], start: int, stop: int, buffer: int = 2
) -> Iterator[tuple[int, Any]]:
    """Yields (step, batch_function(step)) for the steps start to stop - 1, made ahead.

    Batches are pure functions of the step, so the iterator has no state to save: a run that
    resumes starts another one. One thread makes the batches; it ends with the iterator, also
    when the iterator is closed early. An error in batch_function is raised here.

    Args:
        batch_function: gives the batch of a step.
        start, stop: the first step and the one after the last.
        buffer: batches to make ahead, at least 1.
    """
    if stop <= start:
        return
    import grain  # slow to import, and only training needs it

    def make(step: int) -> tuple[int, Any, Exception | None]:
        try:
            return step, batch_function(step), None
        except Exception as error:  # carried over by hand: Grain would rewrite it
            return step, None, error

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=buffer)
    steps = grain.MapDataset.source(_Range(start, stop))
    batches = iter(steps.map(make).to_iter_dataset(options))
    with contextlib.closing(batches):
        for step, batch, error in batches:
            if error is not None:
                raise error
            yield step, batch
