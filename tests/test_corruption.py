"""Corruptions of text: their rates, their spans, what they never touch, and the way back."""

import itertools
from collections import Counter

import numpy as np
import pytest

from data import corruption
from data.corruption import (
    mask_tokens,
    noise_mask,
    num_noise,
    permute_sentences,
    prefix_length,
    span_corruption,
    text_infilling,
)
from data.randomness import key_of, keys_of, uniform

MASK_ID, OTHERS = 5, np.arange(1000, 2000)
SENTINELS = list(range(5000, 5100))


def near(count, total, share, sigmas=5.0):
    """Whether a count is what a share of independent draws gives, within a binomial bound."""
    return abs(count - total * share) <= sigmas * (total * share * (1 - share)) ** 0.5 + 1e-9


def equally_often(values, num_values, sigmas=5.0):
    counts = Counter(values)
    assert len(counts) == num_values
    return all(near(n, len(values), 1 / num_values, sigmas) for n in counts.values())


def test_numbers_depend_on_key_stream_and_place_alone():
    keys = keys_of(np.arange(200), "a", 3)
    numbers = uniform(keys, 50)
    assert numbers.shape == (200, 50)
    assert 0 <= numbers.min() < numbers.max() < 1
    assert len(np.unique(numbers)) == numbers.size
    assert (uniform(keys[7], 50) == numbers[7]).all()
    assert (uniform(keys[::-1], 20) == numbers[::-1, :20]).all()  # a longer row begins alike
    assert not np.isin(uniform(keys, 50, stream=1), numbers).any()
    assert not np.isin(keys_of(np.arange(200), "a", 4), keys).any()
    assert equally_often((numbers * 10).astype(int).ravel(), 10)
    correlation = np.corrcoef(numbers.T) - np.eye(50)
    assert np.abs(correlation).max() < 6 / 200**0.5


def split_mix(state, count):
    """The generator of Steele et al. (2014) in whole numbers: `count` outputs from a state."""
    for i in range(1, count + 1):
        x = (state + i * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        yield x ^ (x >> 31)


def test_numbers_are_those_of_split_mix():
    assert next(split_mix(1234567, 1)) == 6457827717110365317  # the published first output
    for key, stream in ((0, 0), (key_of("a", 3), 2)):
        *_, begin = split_mix(key, stream + 1)
        wanted = [(x >> 11) / 2**53 for x in split_mix(begin, 5)]
        assert uniform(key, 5, stream).tolist() == wanted


def rows_of(num_rows=400, length=64):
    """Different ids everywhere, and which may be hidden: all but the ends and some padding."""
    ids = 10_000 + np.arange(num_rows * length).reshape(num_rows, length)
    lengths = 3 + np.arange(num_rows) % (length - 3)
    maskable = (np.arange(length) > 0) & (np.arange(length) < lengths[:, None])
    return ids, keys_of(np.arange(num_rows), "rows"), maskable


def masked_rows(starts=None, rate=0.15):
    ids, keys, maskable = rows_of()
    options = {"mask_id": MASK_ID, "others": OTHERS, "rate": rate, "starts": starts}
    return ids, maskable, mask_tokens(ids, keys, maskable, **options)


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_bert_hides_so_many_tokens_of_each_row_and_80_10_10_of_them(rate):
    ids, maskable, found = masked_rows(rate=rate)
    chosen = found.weights > 0
    counts = [max(1, round(n * rate)) for n in maskable.sum(1)]
    assert chosen.sum(1).tolist() == counts
    row, _ = np.nonzero(chosen)
    place = found.places[chosen]
    assert maskable[row, place].all()
    assert len(set(zip(row, place, strict=True))) == len(row)  # no place twice
    assert (found.targets[chosen] == ids[row, place]).all()
    assert not found.targets[~chosen].any()
    read = found.inputs[row, place]
    fates = [read == MASK_ID, np.isin(read, OTHERS), read == ids[row, place]]
    shares = [fate.sum() / len(read) for fate in fates]
    print(f"{len(read)} hidden: mask {shares[0]:.4f}, other {shares[1]:.4f}, same {shares[2]:.4f}")
    for fate, share in zip(fates, (0.8, 0.1, 0.1), strict=True):
        assert near(fate.sum(), len(read), share)
    assert np.logical_or.reduce(fates).all()
    restored = found.inputs.copy()
    restored[row, place] = found.targets[chosen]
    assert (restored == ids).all()  # nothing else has changed
    assert equally_often((place - 1)[np.isin(row, np.flatnonzero(maskable.sum(1) == 62))] // 31, 2)


def test_replacements_are_drawn_from_all_other_ids_alike():
    _, _, found = masked_rows(rate=0.4)
    drawn = found.inputs[np.isin(found.inputs, OTHERS)]
    assert equally_often((drawn - OTHERS[0]) // 250, 4)


def test_whole_words_are_hidden_whole():
    ids, _, maskable = rows_of()
    starts = ids % 3 != 1  # words of one and of two pieces
    _, _, found = masked_rows(starts)
    num_split = 0
    for row, allowed in enumerate(maskable):
        hidden = set(found.places[row][found.weights[row] > 0].tolist())
        known = np.flatnonzero(allowed)
        words = np.split(known, np.flatnonzero(starts[row, known])[1:])
        if not starts[row, known[0]]:
            words = np.split(known, np.flatnonzero(starts[row, known]))
        assert all(len(hidden & set(w.tolist())) in (0, len(w)) for w in words)
        most = max(1, round(len(known) * 0.15))
        assert most - 1 <= len(hidden) <= most
        num_split += sum(len(w) > 1 and w[0] in hidden for w in words)
    _, _, tokens = masked_rows()
    assert num_split > 100
    assert (tokens.places != found.places).any()


def test_a_row_is_corrupted_alike_in_any_batch():
    ids, keys, maskable = rows_of(40)
    options = {"mask_id": MASK_ID, "others": OTHERS}
    whole = mask_tokens(ids, keys, maskable, **options)
    part = mask_tokens(ids[7:9], keys[7:9], maskable[7:9], **options)
    for one, other in zip(whole, part, strict=True):
        assert (one[7:9] == other).all()


def test_nothing_to_hide_hides_nothing():
    ids = np.arange(12).reshape(2, 6)
    found = mask_tokens(
        ids, keys_of(np.arange(2)), np.zeros((2, 6), bool), mask_id=MASK_ID, others=OTHERS
    )
    assert (found.inputs == ids).all()
    assert not found.weights.any()


SETTINGS = [(0.15, 3.0), (0.5, 3.0), (0.15, 1.0), (0.9, 1.0)]


@pytest.mark.parametrize(("rate", "mean"), SETTINGS)
def test_t5_hides_exactly_so_many_tokens_in_so_many_spans(rate, mean):
    for length in [*range(2, 40), 100, 114, 512, 568]:
        # Raffel et al.'s random_spans_noise_mask, and never more spans than there are gaps.
        tokens = min(max(int(np.round(length * rate)), 1), length - 1)
        spans = min(max(int(np.round(tokens / mean)), 1), tokens, length - tokens)
        assert num_noise(length, rate, mean) == (tokens, spans)
        for key in range(3):
            hidden = noise_mask(length, key, rate, mean)
            assert (len(hidden), hidden.sum()) == (length, tokens)
            assert not hidden[0]
            assert hidden[-1]
            assert (np.diff(hidden.astype(int)) == 1).sum() == spans
    assert num_noise(512, 0.15, 3.0) == (77, 26)  # the paper's length
    assert noise_mask(1, 0).tolist() == [True]


def test_every_cut_into_spans_is_as_likely():
    masks = [tuple(noise_mask(9, key, 0.45, 2.0)) for key in range(6000)]
    # 4 hidden and 5 kept tokens in 2 spans each: 3 times 4 ways
    assert equally_often(masks, 12)
    lengths = []
    for key in range(200):
        hidden = noise_mask(512, key)
        lengths += [
            sum(1 for _ in run) for is_hidden, run in itertools.groupby(hidden) if is_hidden
        ]
    print(f"mean span {np.mean(lengths):.3f} of {len(lengths)}, longest {max(lengths)}")
    assert np.mean(lengths) == pytest.approx(77 / 26)
    # The gaps between 25 of the 76 places of cuts: P(length 1) = 25 / 76.
    assert near(sum(length == 1 for length in lengths), len(lengths), 25 / 76)


def restored(source, target, sentinels):
    """The text: in place of each sentinel of the source what the target says after it."""
    spans, name = {}, None
    for token in target:
        if token in sentinels:
            name = token
            spans[name] = []
        else:
            spans[name].append(token)
    return [t for token in source for t in spans.get(token, [token])]


def test_source_and_target_give_back_the_text():
    for length in [*range(1, 30), 512]:
        for key, (rate, mean) in enumerate(SETTINGS[:3]):
            ids = np.arange(100, 100 + length)
            source, target = span_corruption(ids, key, SENTINELS, rate, mean)
            assert restored(source.tolist(), target.tolist(), SENTINELS) == ids.tolist()
            marks = [token for token in source.tolist() if token >= SENTINELS[0]]
            assert (
                marks
                == [t for t in target.tolist() if t >= SENTINELS[0]]
                == SENTINELS[: len(marks)]
            )
            assert target[0] == SENTINELS[0]
            hidden = num_noise(length, rate, mean)
            if length > 1:
                assert (len(source), len(target)) == (length - hidden[0] + hidden[1], sum(hidden))


def test_bart_puts_one_mask_for_each_span_and_hides_exactly_the_rate():
    for length, key, mean in itertools.product([*range(1, 40), 300], range(5), (0.5, 3.0)):
        ids = np.arange(100, 100 + length)
        read = text_infilling(ids, key, MASK_ID, mean_span=mean)
        kept = read[read != MASK_ID]
        assert (np.diff(kept) > 0).all()  # in their order
        assert length - len(kept) == min(length, max(1, round(0.3 * length)))
        assert 1 <= (read == MASK_ID).sum() <= length - len(kept)
        # What is missing between two kept tokens has a mask in its place.
        at = np.flatnonzero(read != MASK_ID)
        gaps = np.diff(kept) > 1
        assert (np.diff(at)[gaps] > 1).all()


def test_spans_of_bart_have_the_lengths_of_poisson():
    lengths = np.concatenate([corruption._poisson_spans(300, key, 3.0)[:-1] for key in range(300)])
    print(f"{len(lengths)} spans, mean {lengths.mean():.3f}, empty {np.mean(lengths == 0):.4f}")
    chance = np.exp(-3.0)
    for length in range(8):
        assert near((lengths == length).sum(), len(lengths), chance, 6)  # the last one is left out
        chance *= 3.0 / (length + 1)
    assert abs(lengths.mean() - 3) < 0.05
    assert all(corruption._poisson_spans(n, 1, 3.0).sum() <= n for n in range(1, 50))


def test_spans_of_bart_lie_anywhere():
    places = []
    for key in range(4000):
        read = text_infilling(np.arange(100, 110), key, MASK_ID, rate=0.1, mean_span=50.0)
        places.append(int(np.flatnonzero(read == MASK_ID)[0]))
    assert equally_often(places, 10)


def test_sentences_come_in_any_order():
    orders = [tuple(permute_sentences("abcd", key)) for key in range(4800)]
    assert equally_often(orders, 24)
    sentences = [np.arange(3), np.arange(3, 5)]
    found = permute_sentences(sentences, 1)
    assert sorted(np.concatenate(found).tolist()) == list(range(5))


def test_a_prefix_ends_anywhere_and_leaves_something():
    assert equally_often([prefix_length(8, key) for key in range(3000)], 7)
    assert {prefix_length(8, key) for key in range(3000)} == set(range(1, 8))
    assert (prefix_length(1, 3), prefix_length(2, 3)) == (0, 1)
