"""Shapes of batches: few, within the budget of tokens, and with the least padding."""

import itertools

import numpy as np
import pytest

import data
from data import PAD
from data.buckets import choose_shapes
from tests.data_cases import Texts, epoch_of, pair_batches, random_pairs, random_source


@pytest.mark.parametrize("num_buckets", [1, 2, 4, 9])
@pytest.mark.parametrize("tokens_per_batch", [64, 500, 2048])
def test_shapes_are_few_and_keep_to_the_budget(data_dir, num_buckets, tokens_per_batch):
    source = random_source()
    batches = pair_batches(
        data_dir, source, num_buckets=num_buckets, tokens_per_batch=tokens_per_batch
    )
    for split in data.SPLITS:
        found = epoch_of(batches, 0, split)
        shapes = {(*batch["source"].shape, batch["targets"].shape[1]) for batch in found}
        assert len(shapes) <= num_buckets
        for rows, S, T in shapes:
            assert rows % 8 == 0
            assert S % 8 == 0
            assert T % 8 == 0
            assert rows == 8 or rows * max(S, T) <= tokens_per_batch
            assert (rows + 8) * max(S, T) > tokens_per_batch


def padding_share(batches):
    found = epoch_of(batches, 0)
    places = sum(batch[side].size for batch in found for side in ("source", "targets"))
    real = sum((batch[side] != PAD).sum() for batch in found for side in ("source", "targets"))
    return 1 - real / places


def test_padding_is_little(data_dir):
    counts = {"train": 1000, "validation": 10, "test": 10}
    source = Texts(**{split: random_pairs(count, 5) for split, count in counts.items()})
    shares = [padding_share(pair_batches(data_dir, source, num_buckets=n)) for n in (1, 2, 4, 8)]
    print("padding", [f"{share:.3f}" for share in shares])
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.6
    assert shares[2] < 0.37
    assert shares[3] < 0.33


def brute_force_places(lengths, num_buckets):
    """Padded places under the best chain of shapes, found by trying all of them."""
    levels = [np.unique(-(-side // 8) * 8) for side in lengths.T]
    points = [(s, t) for s in levels[0] for t in levels[1]]
    widest = (levels[0][-1], levels[1][-1])
    best = np.inf
    for count in range(num_buckets):
        for chosen in itertools.combinations(points, count):
            chain = [*chosen, widest]
            if all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(chain)):
                best = min(best, places_of(lengths, chain))
    return best


def places_of(lengths, chain):
    return sum(next(s + t for s, t in chain if a <= s and b <= t) for a, b in lengths)


@pytest.mark.parametrize("num_buckets", [1, 2, 3, 4])
def test_no_chain_of_shapes_pads_less(num_buckets):
    for seed in range(4):
        random = np.random.default_rng(seed)
        source_lengths = random.geometric(0.06, 23).clip(1, 30)
        target_lengths = (source_lengths * random.uniform(0.5, 2, 23)).astype(int).clip(1, 30)
        lengths = np.stack([source_lengths, target_lengths], axis=1)
        chain = [shape[1:] for shape in choose_shapes(lengths, num_buckets, 512, 32)]
        assert len(chain) <= num_buckets
        assert places_of(lengths, chain) == brute_force_places(lengths, num_buckets)
