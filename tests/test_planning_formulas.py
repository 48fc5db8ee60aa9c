"""Formulas of plans against brute force: rings, and the search of the largest batch."""

import numpy as np
import pytest

from analysis import planning
from analysis.chips import CHIPS


def ring_all_reduce(group: int, size: int) -> tuple[np.ndarray, int]:
    """(what each device has in the end, bytes that the first one sent), chunk by chunk."""
    values = [np.arange(size, dtype=np.float32) * (i + 1) for i in range(group)]
    held = [np.split(value, group) for value in values]
    sent = 0
    for turn in range(2 * (group - 1)):
        moving = [(i, (i - turn) % group, held[i][(i - turn) % group].copy()) for i in range(group)]
        for i, chunk, data in moving:
            to = (i + 1) % group
            held[to][chunk] = data if turn >= group - 1 else held[to][chunk] + data
            sent += data.nbytes if i == 0 else 0
    return np.stack([np.concatenate(parts) for parts in held]), sent


@pytest.mark.parametrize("group", [2, 3, 8])
def test_a_ring_sends_what_the_formula_says(group):
    size = 24
    found, sent = ring_all_reduce(group, size)
    expected = np.arange(size) * group * (group + 1) / 2
    np.testing.assert_allclose(found, np.tile(expected, (group, 1)))
    assert sent == planning.ring("all-reduce", group, 4 * size)
    assert 2 * planning.ring("all-gather", group, 4 * size) == sent


# Of 2e9 parameters on 64 H100 with bfloat16, by hand. A host of eight has 8 ports of 50 GB/s to
# the seven others, and each GPU 450 GB/s to the seven beside it.
NETWORK = {
    (1, 64, 1): (2 * 4e9 + 8e9) * 7 / 8 / 400e9,  # 35 ms: gathered twice and scattered
    (64, 1, 1): 2 * 8e9 * 7 / 8 / 400e9,  # 35 ms: an all-reduce of the whole gradient
    # 35 ms: an eighth of the gradient, one GPU on each host; and 31 ms within each host.
    (8, 8, 1): 2 * 1e9 * 7 / 8 / 50e9 + 16e9 * 7 / 8 / 450e9,
    (1, 16, 4): (2 * 1e9 + 2e9) * 7 / 8 / (2 * 50e9) + 2 * 1e9 * 3 / 4 / 450e9,
}


@pytest.mark.parametrize("mesh", NETWORK)
def test_a_group_shares_the_ports_of_its_hosts(mesh):
    sizes = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    found = planning.exchanges(sizes, 8e9, 4e9, 1e8, 5, recomputes=False)
    sent = [(one.members, one.sent) for one in found]
    network = planning.roofline(CHIPS["H100"], False, 0, 0, sent).network
    assert network == pytest.approx(NETWORK[mesh])
    assert {one.group for one in found} == {n for n in mesh if n > 1}


def test_two_hosts_are_bound_by_the_links_within_them():
    seconds = planning.message_seconds(CHIPS["H100"], range(16), 15e9)  # of an array of 16e9
    assert seconds == pytest.approx(15e9 / 450e9)  # 8e9 / 400e9 leave a host


LIMIT = 1000.0
MEMORIES = {
    "straight": lambda rows: 100 + 7.3 * rows,
    "bent": lambda rows: 50 + 0.02 * rows**2,
    "stairs": lambda rows: 100 + 64 * np.ceil(rows / 16),
    "steep": lambda rows: 300 * rows,
    "sudden": lambda rows: 10 if rows < 4 else 1e6 + rows,  # as where the compiler gives up
    "none": lambda rows: 2000 + rows,
}


@pytest.mark.parametrize("name", MEMORIES)
def test_the_largest_batch_is_within_a_sixteenth_of_the_best(name):
    cases = 0
    for unit in (1, 4):
        for start in (1, 8, 64, 512, 100_000):
            asked = []

            def memory(rows, asked=asked):
                asked.append(rows)
                return MEMORIES[name](rows)

            found = planning.largest(memory, LIMIT, unit, start, 5.0)
            every = [n for n in range(unit, 5000, unit) if MEMORIES[name](n) <= LIMIT]
            best = max(every, default=0)
            assert found <= best
            assert best - found <= max(unit, best / 16)
            assert len([n for n in asked if n < 5000]) <= planning.MOST_ANSWERS
            assert found % unit == 0
            cases += 1
    print(f"{cases} searches")
