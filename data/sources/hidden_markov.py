"""A language whose entropy is known: the symbols that a hidden Markov model emits."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.sources.base import Example
from data.sources.synthetic import Synthetic
from registry import NonNegativeInt, PositiveInt

NUM_WEIGHTS = 1000  # probabilities are whole numbers of these before they are normalised


class Entropy(NamedTuple):
    """What the best predictor that there is would lose, in nats.

    Attributes:
        per_token: mean over all tokens of a sentence, its end among them.
        standard_error: of per_token, by simulation.
        by_position: of the token at each place given all before it; the last is the end.
    """

    per_token: float
    standard_error: float
    by_position: np.ndarray


@dataclass(eq=False, kw_only=True)
class HiddenMarkov(Synthetic):
    """Sentences of `length` symbols (s0, s1, ...) from a hidden Markov model.

      z_1 ~ uniform, z_t ~ A[z_{t-1}], x_t ~ B[z_t]        (Rabiner 1989, eq. 7 and 8)

    Source and target are the same sentence: language models read either.

    Args:
        num_states: of the hidden chain.
        num_symbols: words of the language; several states emit the same.
        length: symbols of a sentence.
        sharpness: rows of A and B are u^sharpness, u uniform, normalised: the higher, the
            more can be predicted.
    """

    name = "hidden_markov"

    num_states: PositiveInt = 12
    num_symbols: PositiveInt = 24
    length: PositiveInt = 48
    sharpness: NonNegativeInt = 24

    def __post_init__(self):
        uniform = random.Random(f"{self.name} model {self.seed}").random
        self.transition_SS = self._rows(uniform, self.num_states)
        self.emission_SV = self._rows(uniform, self.num_symbols)
        chains = (self.transition_SS, self.emission_SV)
        self._cumulative = [np.cumsum(rows, axis=1).tolist() for rows in chains]

    def _rows(self, uniform, width: int) -> np.ndarray:
        """One distribution a state; whole numbers first, so that no rounding decides a draw."""
        size = self.num_states * width
        weights = [1 + int(NUM_WEIGHTS * uniform() ** self.sharpness) for _ in range(size)]
        rows = np.array(weights, np.float64).reshape(self.num_states, width)
        return rows / rows.sum(axis=1, keepdims=True)

    def draw(self, random_int):
        transitions, emissions = self._cumulative

        def choose(cumulative: list[float]) -> int:
            u = random_int(2**32) / 2**32
            return next((i for i, up_to in enumerate(cumulative) if u < up_to), len(cumulative) - 1)

        state, symbols = random_int(self.num_states), []
        for _ in range(self.length):
            symbols.append(f"s{choose(emissions[state])}")
            state = choose(transitions[state])
        text = " ".join(symbols)
        return Example(text, text, tuple((i, i) for i in range(self.length)))

    def _after(self, belief_NS: np.ndarray, symbol_N: np.ndarray) -> np.ndarray:
        """p(z_{t+1} | x_1 .. x_t) from p(z_t | x_1 .. x_{t-1}) and x_t."""
        belief_NS = belief_NS * self.emission_SV.T[symbol_N]
        return belief_NS / belief_NS.sum(axis=1, keepdims=True) @ self.transition_SS

    def loss_of_truth(self, sentences: Sequence[str]) -> np.ndarray:
        """-ln p(x_t | x_<t) in nats of each token of some sentences, the end last.

        (N, length + 1), by the forward algorithm: what the model that made them loses on just
        these, where `entropy` is what it loses on endless text. No model has a lower expected
        loss; by chance one may lose less here.
        """
        symbol_NT = np.array([[int(word[1:]) for word in text.split()] for text in sentences])
        belief_NS = np.full((len(sentences), self.num_states), 1 / self.num_states)
        found_NT = np.zeros((len(sentences), self.length + 1))  # the end is certain
        for t, symbol_N in enumerate(symbol_NT.T):
            chance_NV = belief_NS @ self.emission_SV
            found_NT[:, t] = -np.log(chance_NV[np.arange(len(symbol_N)), symbol_N])
            belief_NS = self._after(belief_NS, symbol_N)
        return found_NT

    def entropy(self, num_sentences: int = 20_000) -> Entropy:
        """The entropy of a token given all before it, by the forward algorithm.

        Draws x_t from p(x_t | x_<t), which the forward recursion gives exactly, and averages
        the entropy of that distribution; only the mean over histories is simulated.
        """
        random_NT = np.random.Generator(np.random.PCG64(self.seed)).random(
            (num_sentences, self.length)
        )
        belief_NS = np.full((num_sentences, self.num_states), 1 / self.num_states)
        found_TN = []
        for u_N in random_NT.T:
            next_NV = belief_NS @ self.emission_SV
            found_TN.append(-(next_NV * np.log(next_NV)).sum(axis=1))
            drawn_N = (u_N[:, None] > next_NV.cumsum(axis=1)).sum(axis=1)
            drawn_N = np.minimum(drawn_N, self.num_symbols - 1)
            belief_NS = self._after(belief_NS, drawn_N)
        found_NT = np.array([*found_TN, np.zeros(num_sentences)]).T  # the end is certain
        error = found_NT.mean(axis=1).std() / num_sentences**0.5
        return Entropy(float(found_NT.mean()), float(error), found_NT.mean(axis=0))
