"""Tasks that a sequence model must be able to learn: copy, reverse, sort and addition.

Strings of symbols divided by spaces, drawn anew from the seed. Validation and test hold
strings that training does not, so a model that only remembers fails.
"""

import random
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from data.sources.base import SPLITS, Example, Source
from errors import ConfigError
from registry import NonNegativeInt, PositiveInt

ATTEMPTS = 1000  # draws in vain before the strings count as used up


@dataclass(eq=False, kw_only=True)
class Synthetic(Source):
    """Draws questions and answers them; a subclass says how.

    Args:
        num_train, num_validation, num_test: examples of each split.
        seed: another seed, other strings.
    """

    cache_dir: str = ""  # not used: drawn faster than read
    num_train: PositiveInt = 10_000
    num_validation: PositiveInt = 256
    num_test: PositiveInt = 256
    seed: NonNegativeInt = 0

    def draw(self, random_int: Callable[[int], int]) -> Example:
        """One example; random_int(n) gives a number from 0 to n - 1."""
        raise NotImplementedError

    def read(self, split: str) -> Iterable[Example]:
        # A later split avoids what an earlier one holds.
        earlier = {"test": (), "validation": ("test",), "train": ("test", "validation")}[split]
        held_out = {pair.source for name in earlier for pair in self.pairs(name)}
        # Only random() is promised to stay the same in every version of Python.
        uniform = random.Random(f"{self.name} {split} {self.seed}").random
        size = getattr(self, f"num_{split}")
        examples, in_vain = [], 0
        while len(examples) < size:
            example = self.draw(lambda n: int(uniform() * n))
            if example.source in held_out:
                in_vain += 1
                if in_vain == ATTEMPTS:
                    raise ConfigError(self.used_up(split))
                continue
            in_vain = 0
            examples.append(example)
            if split != "train":
                held_out.add(example.source)  # each string of a held-out split stands once
        return examples

    def used_up(self, split: str) -> str:
        """The sentence for a task with fewer strings than the config asks for."""
        wanted = ", ".join(f"num_{name}={getattr(self, f'num_{name}')}" for name in SPLITS)
        return (
            f"config.task.source: {self.name} has too few different strings for {wanted} "
            f"({split} ran out). Ask for fewer, or for longer strings."
        )

    def check_lengths(self, min_length: int, max_length: int) -> None:
        if max_length < min_length:
            raise ConfigError(
                f"config.task.source.max_length: {max_length} is less than min_length, "
                f"{min_length}."
            )


@dataclass(eq=False, kw_only=True)
class Symbols(Synthetic):
    """Strings over an alphabet (a, b, ... z, a1, b1, ...); the answer reorders the symbols.

    Args:
        min_length, max_length: symbols in a string, both included.
        alphabet_size: different symbols.
    """

    min_length: PositiveInt = 4
    max_length: PositiveInt = 12
    alphabet_size: PositiveInt = 16

    def __post_init__(self):
        self.check_lengths(self.min_length, self.max_length)
        letters = string.ascii_lowercase
        self.alphabet = [f"{letters[i % 26]}{i // 26 or ''}" for i in range(self.alphabet_size)]

    def order(self, symbols: list[int]) -> Iterable[int]:
        """The places of the question's symbols in the order of the answer."""
        raise NotImplementedError

    def draw(self, random_int):
        length = self.min_length + random_int(self.max_length - self.min_length + 1)
        symbols = [random_int(self.alphabet_size) for _ in range(length)]
        places = list(self.order(symbols))
        return Example(
            source=" ".join(self.alphabet[i] for i in symbols),
            target=" ".join(self.alphabet[symbols[place]] for place in places),
            alignment=tuple(sorted((place, i) for i, place in enumerate(places))),
        )


class Copy(Symbols):
    """The answer is the question."""

    name = "copy"

    def order(self, symbols):
        return range(len(symbols))


class Reverse(Symbols):
    """The answer is the question from its end."""

    name = "reverse"

    def order(self, symbols):
        return reversed(range(len(symbols)))


class Sort(Symbols):
    """The answer has the symbols in the order of the alphabet; equal ones keep their order."""

    name = "sort"

    def order(self, symbols):
        return sorted(range(len(symbols)), key=symbols.__getitem__)


@dataclass(eq=False, kw_only=True)
class Addition(Synthetic):
    """The sum of two decimal numbers, digit by digit: "1 2 + 9" gives "2 1".

    Args:
        min_length, max_length: digits of each number, both included.
    """

    name = "addition"

    min_length: PositiveInt = 1
    max_length: PositiveInt = 4

    def __post_init__(self):
        self.check_lengths(self.min_length, self.max_length)

    def draw(self, random_int):
        numbers = [self.number(random_int) for _ in range(2)]
        total = str(sum(numbers))
        return Example(" + ".join(" ".join(str(n)) for n in numbers), " ".join(total))

    def number(self, random_int: Callable[[int], int]) -> int:
        """A number without leading zeros, its count of digits drawn first."""
        length = self.min_length + random_int(self.max_length - self.min_length + 1)
        smallest = 10 ** (length - 1) if length > 1 else 0
        return smallest + random_int(10**length - smallest)
