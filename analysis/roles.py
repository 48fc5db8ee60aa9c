"""What attention heads look at: scores of roles whose answer is known for a sentence.

A role names, for each query, the keys that a head of that role looks at. Its score is the mean
weight on them over all queries that have such keys; `chance` is that of a head that looks at all
keys it may see alike. A head has the role where the score is over THRESHOLD and over twice chance.

Roles of self-attention (Voita et al. 2019; Olsson et al. 2022), tokens x_0 .. x_{T-1}:
  previous token  t looks at t - 1
  next token      t looks at t + 1 (an encoder's only: a causal head cannot)
  first token     t > 0 looks at 0, which is BOS in a decoder, [CLS] in an encoder alone
  rare word       t looks at the rarest token of the sentence that it may see
  induction       ... A B ... A: t, the second A, looks at B, the token after the first one
  agreement       a verb looks at the noun that is its subject
Roles of attention across, rows target and columns source:
  diagonal        t looks at the same place of the source
  alignment       t looks at the words that it translates
  first token, rare word as above, of the source

Axes: T queries, S keys.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis.attention import ACROSS, Head

THRESHOLD = 0.4  # of the weight; Voita et al. 2019 ask for the same order of "positional" heads


class Score(NamedTuple):
    """How much of its weight a head puts where a role says.

    Attributes:
        score, chance: means over queries, of the head and of one that looks at all keys alike.
        queries: how many had such a key.
    """

    score: float
    chance: float
    queries: int

    @property
    def is_role(self) -> bool:
        """Whether the head may be called by the role."""
        return self.queries > 0 and self.score > max(THRESHOLD, 2 * self.chance)


def role_score(weights_TS: np.ndarray, targets_TS: np.ndarray, seen_TS: np.ndarray) -> Score:
    """Mean weight on the keys of a role.

    Args:
        weights_TS: of one head.
        targets_TS: True where the role looks; a row without True is left out.
        seen_TS: True where the head may look.
    """
    targets_TS = targets_TS & seen_TS
    # Who sees nothing but the answer looks at it whatever his role.
    asked_T = targets_TS.any(axis=1) & (seen_TS & ~targets_TS).any(axis=1)
    if not asked_T.any():
        return Score(0.0, 0.0, 0)
    on_target_T = (weights_TS * targets_TS).sum(axis=1)[asked_T]
    chance_T = (targets_TS.sum(axis=1) / np.maximum(seen_TS.sum(axis=1), 1))[asked_T]
    return Score(float(on_target_T.mean()), float(chance_T.mean()), int(asked_T.sum()))


def shifted(num_queries: int, num_keys: int, offset: int) -> np.ndarray:
    """True where key = query + offset."""
    return np.eye(num_queries, num_keys, offset, dtype=bool)


def rarest(tokens: Sequence[int], counts: Mapping[int, int], seen_TS: np.ndarray) -> np.ndarray:
    """True at the rarest token that each query may see, all of them where several are.

    Args:
        counts: how frequent each token is in the text at large.
    """
    frequency_S = np.array([counts.get(token, 0) for token in tokens], float)
    seen_frequency_TS = np.where(seen_TS, frequency_S, np.inf)
    return seen_TS & (seen_frequency_TS == seen_frequency_TS.min(axis=1, keepdims=True))


def after_earlier(tokens: Sequence[int]) -> np.ndarray:
    """True where the token before a key is the query's own, seen earlier: A B ... A -> B."""
    ids = np.asarray(tokens)
    found_TS = np.zeros((len(ids), len(ids)), bool)
    found_TS[:, 1:] = ids[:, None] == ids[None, :-1]
    return found_TS & np.tri(len(ids), dtype=bool)


def from_pairs(shape: tuple[int, int], pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """True at (query, key) pairs, such as a verb and its subject."""
    found_TS = np.zeros(shape, bool)
    for query, key in pairs:
        found_TS[query, key] = True
    return found_TS


class Sentence(NamedTuple):
    """What is known of a sentence that a model read.

    Attributes:
        maps: weights of each head.
        source, reads: tokens of the encoder; of the decoder or language model, BOS first. Empty
            where the model has no such part.
        links: (target, source) tokens that translate each other.
        agreements: (verb, subject) tokens by part, for "encoder" and "decoder".
        is_random: of random tokens, read twice, to look for induction only.
    """

    maps: Mapping[Head, np.ndarray]
    source: Sequence[int]
    reads: Sequence[int]
    links: Iterable[tuple[int, int]] = ()
    agreements: Mapping[str, Iterable[tuple[int, int]]] = {}
    is_random: bool = False


def targets(
    sentence: Sentence, part: str, counts: Mapping[int, int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where each role looks in one part, {role: targets_TS}, and seen_TS."""
    keys = sentence.reads if part == "decoder" else sentence.source
    num_keys = len(keys)
    num_queries = len(sentence.reads) if part != "encoder" else num_keys
    seen_TS = np.ones((num_queries, num_keys), bool)
    if part == "decoder":
        seen_TS = np.tri(num_keys, dtype=bool)
    if sentence.is_random:
        return ({} if part in ACROSS else {"induction": after_earlier(keys)}), seen_TS
    first_TS = np.zeros(seen_TS.shape, bool)
    first_TS[0 if part in ACROSS else 1 :, 0] = True
    found = {"first token": first_TS, "rare word": rarest(keys, counts, seen_TS)}
    if part in ACROSS:
        found["diagonal"] = shifted(num_queries, num_keys, 0)
        found["alignment"] = from_pairs(seen_TS.shape, sentence.links)
    else:
        found["previous token"] = shifted(num_queries, num_keys, -1)
        found["next token"] = shifted(num_queries, num_keys, 1)  # seen by no causal head
        found["agreement"] = from_pairs(seen_TS.shape, sentence.agreements.get(part, ()))
    return found, seen_TS


def find_roles(
    sentences: Iterable[Sentence], counts: Mapping[int, int] | None = None
) -> dict[Head, dict[str, Score]]:
    """Scores of all heads for all roles that some sentence knows, over the queries of all.

    Args:
        counts: of tokens, for the rarest; default: counted in the sentences themselves.
    """
    sentences = list(sentences)
    if counts is None:
        told = [s for s in sentences if not s.is_random]
        counts = Counter(token for s in told for side in (s.source, s.reads) for token in side)
    sums: dict[tuple[Head, str], np.ndarray] = defaultdict(lambda: np.zeros(3))
    for sentence in sentences:
        known = {part: targets(sentence, part, counts) for part in {h.part for h in sentence.maps}}
        for head, weights_TS in sentence.maps.items():
            roles, seen_TS = known[head.part]
            for role, targets_TS in roles.items():
                found = role_score(weights_TS, targets_TS, seen_TS)
                sums[head, role] += found.queries * np.array([found.score, found.chance, 1.0])
    scores: dict[Head, dict[str, Score]] = {head: {} for s in sentences for head in s.maps}
    for (head, role), (score, chance, queries) in sums.items():
        if queries:
            scores[head][role] = Score(score / queries, chance / queries, int(queries))
    return scores


def coreference_contrast(
    one_TS: np.ndarray,
    other_TS: np.ndarray,
    queries: tuple[int, int],
    first: Sequence[int],
    second: Sequence[int],
) -> tuple[float, float]:
    """P(animal) - P(street) at "it", under both endings of a Winograd pair.

    'The animal did not cross the street because it was too tired / too wide'. A head that
    resolves the pronoun gives a positive difference under the first ending and a negative
    one under the second; one that looks at a place gives the same under both. In a causal
    model the ending comes after the pronoun, so that the query is then a token of the ending.

    Args:
        one_TS, other_TS: weights of one head on the sentence with each ending.
        queries: the pronoun in each of them.
        first, second: keys of "the animal" and of "the street".

    Raises:
        ValueError: a place is outside of the weights.
    """
    differences, keys = [], [*first, *second]
    for map_TS, query in zip((one_TS, other_TS), queries, strict=True):
        within = min(query, *keys) >= 0 and query < len(map_TS) and max(keys) < map_TS.shape[1]
        if not first or not second or not within:
            raise ValueError(
                f"query {query} and keys {keys} are not all within weights of {map_TS.shape}."
            )
        on_nouns = [float(map_TS[query, list(noun)].sum()) for noun in (first, second)]
        differences.append(on_nouns[0] - on_nouns[1])
    return differences[0], differences[1]
