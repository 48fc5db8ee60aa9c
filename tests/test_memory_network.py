"""The memory network against a loop over sentences and words, and its stories."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest
from model_cases import SEQ2SEQ, VOCAB, make

import data
import models
from data.sources.supporting_facts import ARRIVED, PEOPLE, TOOK
from errors import ConfigError

BLOCK = SEQ2SEQ["memory-attention"]
END = BLOCK["separator"]
STORIES = [  # sentences, question; the first has more sentences than are read
    ([[4, 5], [6, 7, 8], [5], [10, 11, 4], [7, 7]], [5, 6]),
    ([[12, 4, 5]], [8]),
    ([], [4, 5, 6]),
]


def encoded_stories() -> np.ndarray:
    rows = [[word for one in story for word in (*one, END)] + asked for story, asked in STORIES]
    width = max(map(len, rows))
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)


def bag(words, table, position_encoding):
    """sum_j l_j A x_j (Sukhbaatar et al. 2015, 4.1), indices from 1 as there."""
    d, total = table.shape[1], 0.0
    for j, word in enumerate(words, 1):
        k, share = np.arange(1, d + 1), j / len(words)
        code = (1 - share) - (k / d) * (1 - 2 * share)
        total = total + (code if position_encoding else 1) * table[word]
    return total


def by_loop(model, params, story, asked, inputs):
    """(logits at each place, weights of each hop at each place, the latest sentence first)."""
    hops = range(model.num_hops)
    tables = [params["embed"]["embedding"], *(params[f"words_{k}"]["embedding"] for k in hops)]
    times = [params[f"times_{k}"]["embedding"] for k in range(model.num_hops + 1)]
    read = story[::-1][: model.max_sentences]
    logits, maps = [], []
    for t in range(len(inputs)):
        u = bag(asked, tables[0], model.position_encoding) + tables[0][inputs[: t + 1]].sum(0)
        rows = []
        for k in hops:
            m, c = (
                np.array(
                    [
                        bag(s, tables[n], model.position_encoding) + times[n][i]
                        for i, s in enumerate(read)
                    ]
                )
                for n in (k, k + 1)
            )
            weights = np.zeros(len(read))
            if read:
                weights = m @ u if model.linear else np.exp(m @ u) / np.exp(m @ u).sum()
                u = u + weights @ c
            rows.append(np.pad(weights, (0, model.max_sentences - len(read))))
        logits.append(tables[-1] @ u)
        maps.append(rows)
    return np.array(logits), np.array(maps).swapaxes(0, 1)


@pytest.mark.parametrize("option", [{}, {"position_encoding": False}, {"linear": True}])
def test_logits_and_hops_equal_a_loop(option):
    model, variables = make({**BLOCK, "num_hops": 3, **option})
    inputs_BT = np.array([[2, 5, 6]] * 3, np.int32)
    run = jax.jit(lambda v, s, i: model.apply(v, s, i, mutable="intermediates"))
    found, sown = run(variables, encoded_stories(), inputs_BT)
    params = jax.tree.map(np.asarray, variables["params"])
    for b, (story, asked) in enumerate(STORIES):
        logits, maps = by_loop(model, params, story, asked, inputs_BT[b])
        np.testing.assert_allclose(found[b], logits, atol=1e-4)
        for k in range(3):
            weights = sown["intermediates"][f"hops_{k}"]["weights"][0][b, 0]
            np.testing.assert_allclose(weights, maps[k], atol=1e-5)


def test_a_separator_outside_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="separator must be an id below 13"):
        models.build({**BLOCK, "separator": VOCAB}, VOCAB)


# ------------------------------------------------------------------ stories


def stories(num_facts, **options):
    sizes = {"num_train": 300, "num_validation": 30, "num_test": 30}
    block = {"name": "supporting_facts", "num_facts": num_facts, **sizes, **options}
    return data.build_source(block, "")


def answer(sentences, question):
    """Reads a story from its first sentence to its last; None where it does not say."""
    journeys, holder = {}, {}
    for person, verb, what in sentences:
        assert person in PEOPLE
        if verb in TOOK:
            assert what not in holder
            holder[what] = person
            journeys[what] = []
            continue
        assert verb in ARRIVED
        assert journeys.get(person, [])[-1:] != [what]  # nobody comes to where they are
        for mover in (person, *(thing for thing, by in holder.items() if by == person)):
            journeys.setdefault(mover, []).append(what)
    visits = journeys.get(question[2], [])
    if question[1] == "is":
        return visits[-1] if visits else None
    pairs = [before for before, after in itertools.pairwise(visits) if after == question[4]]
    return pairs[-1] if len(pairs) == 1 else None


@pytest.mark.parametrize("num_facts", [1, 2, 3])
def test_answers_are_right_and_follow_from_the_facts_alone(num_facts):
    tried = 0
    for example in stories(num_facts).pairs("train"):
        *sentences, question = [part.split() for part in example.source.split(" . ")]
        assert answer(sentences, question) == example.target
        words = example.source.split()
        places = [i for i, target in example.alignment if target == 0]
        assert len(places) == 3 * num_facts
        kept = [words[i : i + 3] for i in sorted(places)[::3]]
        assert len(kept) == num_facts
        assert answer(kept, question) == example.target
        for without in range(num_facts):  # none of them can be spared
            rest = kept[:without] + kept[without + 1 :]
            assert answer(rest, question) != example.target
        tried += 1
    print(f"{tried} stories")


def test_the_full_stop_is_the_separator_of_the_config():
    for num_facts in (1, 2, 3):
        source = stories(num_facts)
        counts = Counter(w for pair in source.pairs("train") for w in pair.source.split())
        (first, most), (_, second) = counts.most_common(2)
        assert first == "."
        assert most > second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_facts": 4}, "Known: 1, 2, 3"),
        ({"num_facts": 3, "min_sentences": 1, "max_sentences": 2}, "Ask for longer ones"),
        ({"num_facts": 1, "min_sentences": 9, "max_sentences": 8}, "less than min_sentences"),
        ({"num_facts": 1, "num_places": 1}, "at least 2"),
        ({"num_facts": 1, "num_people": 7}, "at most 6"),
    ],
)
def test_bad_options_are_one_line(options, words):
    with pytest.raises(ConfigError, match=words):
        stories(**options).pairs("train")


def test_the_stories_of_a_seed_never_change():
    assert stories(2).fingerprint() == stories(2).fingerprint() != stories(2, seed=1).fingerprint()
    assert stories(2).fingerprint()[:12] == "9e0016b3dd54"
