"""Random numbers that are functions of a key.

The same on every machine and in every version, which NumPy does not promise of its streams.
The generator is SplitMix64 (Steele et al. 2014): a hash of a counter.
"""

import hashlib

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15  # the counter's step


def key_of(*parts: object) -> int:
    """A 64-bit key from anything that can be written."""
    text = " ".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 of uint64 numbers: a bijection whose bits look random."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys_of(numbers: np.ndarray, *parts: object) -> np.ndarray:
    """A uint64 key for each of some numbers, such as those of rows, beside parts they share."""
    steps = np.asarray(numbers).astype(np.uint64) * np.uint64(GOLDEN)
    return mixed(steps + np.uint64(key_of(*parts)))


def uniform(keys: np.ndarray | int, count: int, stream: int = 0) -> np.ndarray:
    """float64 numbers in [0, 1), `count` for each key: shape keys.shape + (count,).

    Args:
        stream: another one gives numbers that have nothing to do with those of the first.
    """
    begin = np.uint64(GOLDEN * (stream + 1) % 2**64)
    start = mixed(np.asarray(keys, np.uint64)[..., None] + begin)
    bits = mixed(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN))
    return (bits >> np.uint64(11)) * 2.0**-53


def shuffled(count: int, key: str) -> np.ndarray:
    """A permutation of the numbers below count that depends on the key alone."""
    numbers = np.arange(count, dtype=np.uint64) + np.uint64(key_of(key))
    return np.argsort(mixed(numbers))  # a bijection: no two are equal
