"""What lies between an array of theirs and ours: named pairs of exact inverses.

Theirs are the layouts of PyTorch (a linear layer is (out, in)) and of GPT-2's Conv1D (in, out);
ours have heads on axes of their own. Ids are numbered otherwise: see Ids.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Ids(NamedTuple):
    """How our ids stand to theirs.

    Attributes:
        theirs: of each of our ids, (V,). Each id of theirs is there at least once.
        copies: our ids that repeat one of theirs, which stands for another id of ours. Their
            rows are filled when weights are read and forgotten when they are written.
    """

    theirs: Array
    copies: tuple[int, ...] = ()

    @classmethod
    def same(cls, vocab_size: int) -> "Ids":
        """Their ids are ours."""
        return cls(np.arange(vocab_size))

    def read(self, rows: Array) -> Array:
        """Our rows from theirs.

        Raises:
            ValueError: there are more or fewer than ids.
        """
        if len(rows) != self.theirs.max() + 1:
            raise ValueError(f"{len(rows)} rows for {self.theirs.max() + 1} ids")
        return rows[self.theirs]

    def write(self, rows: Array) -> Array:
        """Their rows from ours."""
        kept = np.setdiff1d(np.arange(len(self.theirs)), self.copies)
        found = np.empty((len(kept), *rows.shape[1:]), rows.dtype)
        found[self.theirs[kept]] = rows[kept]
        return found


class Sizes(NamedTuple):
    """What a transform has to know of the model."""

    num_heads: int
    ids: Ids


class Transform(NamedTuple):
    """read: one array of theirs to one or several of ours; write: back."""

    read: Callable[[Array, Sizes], Sequence[Array]]
    write: Callable[[Sequence[Array], Sizes], Array]


def _one(
    read: Callable[[Array, Sizes], Array], write: Callable[[Array, Sizes], Array]
) -> Transform:
    """A pair for one array of ours."""
    return Transform(lambda x, sizes: [read(x, sizes)], lambda xs, sizes: write(xs[0], sizes))


def _split(x: Array, sizes: Sizes) -> Array:
    """(..., H * K) to (..., H, K)."""
    return x.reshape(*x.shape[:-1], sizes.num_heads, -1)


def _flat(x: Array, sizes: Sizes) -> Array:
    """(..., H, K) to (..., H * K)."""
    return x.reshape(*x.shape[:-2], -1)


def _split_first(x: Array, sizes: Sizes) -> Array:
    """(H * K, D) to (H, K, D)."""
    return x.reshape(sizes.num_heads, -1, x.shape[-1])


def _flat_first(x: Array, sizes: Sizes) -> Array:
    """(H, K, D) to (H * K, D)."""
    return x.reshape(-1, x.shape[-1])


def _turn(by: int) -> Callable[[Array, Sizes], Array]:
    return lambda x, sizes: np.roll(x, by, axis=0)


UNREAD_POSITIONS = 2  # rows before that of position 0 in the tables of BART and RoBERTa

TRANSFORMS: dict[str, Transform] = {
    "same": _one(lambda x, sizes: x, lambda x, sizes: x),
    # Linear: (out, in) to (in, out), with heads on the side of out or of in.
    "transpose": _one(lambda x, sizes: x.T, lambda x, sizes: x.T),
    "to_heads": _one(lambda x, sizes: _split(x.T, sizes), lambda x, sizes: _flat(x, sizes).T),
    "from_heads": _one(
        lambda x, sizes: _split_first(x.T, sizes), lambda x, sizes: _flat_first(x, sizes).T
    ),
    "bias_to_heads": _one(_split, _flat),
    # Conv1D: (in, out), with queries, keys and values side by side.
    "conv_from_heads": _one(_split_first, _flat_first),
    "conv_to_qkv": Transform(
        lambda x, sizes: [_split(part, sizes) for part in np.split(x, 3, axis=-1)],
        lambda xs, sizes: np.concatenate([_flat(x, sizes) for x in xs], axis=-1),
    ),
    # The classes of BERT's pairs: next sentence first there, last here.
    "reverse": _one(lambda x, sizes: x[::-1], lambda x, sizes: x[::-1]),
    "transpose_reverse": _one(lambda x, sizes: x.T[:, ::-1], lambda x, sizes: x[:, ::-1].T),
    # Of the vocabulary.
    "rows": _one(lambda x, sizes: sizes.ids.read(x), lambda x, sizes: sizes.ids.write(x)),
    "rows_1V": _one(
        lambda x, sizes: sizes.ids.read(x[0]), lambda x, sizes: sizes.ids.write(x)[None]
    ),
    # Position 0 first; the rows that no position reads come last.
    "offset": _one(_turn(-UNREAD_POSITIONS), _turn(UNREAD_POSITIONS)),
}
