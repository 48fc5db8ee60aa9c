"""Roles of heads, on weights that are made so that the answer is known."""

import csv
import itertools

import numpy as np
import pytest

import data
from analysis import roles
from analysis.attention import Head, by_head
from experiments import head_roles
from experiments.attention_payload import Reading

TOKENS = [2, 10, 11, 12, 10, 13, 14, 11]  # 14, 13 and 12 stand once; here 14 is made the rarest
COUNTS = {2: 100, 10: 9, 11: 8, 12: 5, 13: 3, 14: 1}
T = len(TOKENS)


def towards(targets_TS: np.ndarray, seen_TS: np.ndarray, weight: float = 0.9) -> np.ndarray:
    """A head that puts so much on its targets and the rest alike on what it sees."""
    rest_TS = seen_TS / np.maximum(seen_TS.sum(1, keepdims=True), 1)
    aim_TS = targets_TS / np.maximum(targets_TS.sum(1, keepdims=True), 1)
    has_T = targets_TS.any(axis=1, keepdims=True)
    return np.where(has_T, weight * aim_TS + (1 - weight) * rest_TS, rest_TS)


def pointing(pairs: dict[int, list[int]], num_queries: int, num_keys: int) -> np.ndarray:
    """True at the keys of each query, written out by hand."""
    found_TS = np.zeros((num_queries, num_keys), bool)
    for query, keys in pairs.items():
        found_TS[query, keys] = True
    return found_TS


# The answers by hand, not by the code under test.
ANSWERS = {
    "decoder": {
        "previous token": {t: [t - 1] for t in range(1, T)},
        "first token": {t: [0] for t in range(1, T)},
        "rare word": {0: [0], 1: [1], 2: [2], 3: [3], 4: [3], 5: [5], 6: [6], 7: [6]},
        "agreement": {5: [3]},
    },
    "encoder": {
        "previous token": {t: [t - 1] for t in range(1, T)},
        "next token": {t: [t + 1] for t in range(T - 1)},
        "first token": {t: [0] for t in range(1, T)},
        "rare word": {t: [6] for t in range(T)},
        "agreement": {7: [1]},
    },
    "cross": {
        "diagonal": {t: [t] for t in range(T)},
        "alignment": {0: [4], 1: [3, 2], 6: [7]},
        "rare word": {t: [6] for t in range(T)},
        "first token": {t: [0] for t in range(T)},
    },
}
AGREEMENTS = {"decoder": [(5, 3)], "encoder": [(7, 1)]}
LINKS = [(0, 4), (1, 3), (1, 2), (6, 7)]


def planted(weight: float = 0.9) -> tuple[roles.Sentence, dict[Head, str]]:
    """A sentence read by a model that has a head of each role, and a head that looks evenly."""
    maps, names = {}, {}
    for part, answers in ANSWERS.items():
        seen_TS = np.tri(T, dtype=bool) if part == "decoder" else np.ones((T, T), bool)
        for h, (role, pairs) in enumerate([*answers.items(), ("", {})]):
            head = Head(part, 0, h)
            maps[head] = towards(pointing(pairs, T, T), seen_TS, weight)
            names[head] = role
    return roles.Sentence(maps, TOKENS, TOKENS, LINKS, AGREEMENTS), names


def test_each_planted_head_is_found_and_an_even_one_has_no_role():
    sentence, names = planted()
    found = roles.find_roles([sentence], COUNTS)
    for head, role in names.items():
        best = max(found[head].items(), key=lambda item: item[1].score - item[1].chance)
        named = {name for name, score in found[head].items() if score.is_role}
        if role:
            assert best[0] == role, head
            assert best[1].score >= 0.9
            assert role in named
        else:
            assert named == set()
            for score in found[head].values():
                assert score.score == pytest.approx(score.chance)
    assert set(found[Head("decoder", 0, 0)]) == set(ANSWERS["decoder"])
    print(f"{len(names)} heads")


def test_the_score_is_the_mean_weight_on_the_target():
    """By a loop: the diagonal of any weights, without the query that sees only its target."""
    rng = np.random.default_rng(0)
    weights_TS = np.tril(rng.random((6, 6)))
    weights_TS /= weights_TS.sum(1, keepdims=True)
    seen_TS = np.tri(6, dtype=bool)
    found = roles.role_score(weights_TS, np.eye(6, dtype=bool), seen_TS)
    assert found.queries == 5
    assert found.score == pytest.approx(sum(weights_TS[t, t] for t in range(1, 6)) / 5)
    assert found.chance == pytest.approx(sum(1 / (t + 1) for t in range(1, 6)) / 5)
    nothing = roles.role_score(weights_TS, np.zeros((6, 6), bool), seen_TS)
    assert (nothing.queries, nothing.is_role) == (0, False)


def test_a_role_needs_weight_and_to_be_better_than_chance():
    assert roles.Score(0.9, 0.1, 5).is_role
    assert not roles.Score(0.3, 0.01, 5).is_role
    assert not roles.Score(0.6, 0.5, 5).is_role  # in a sentence of two words anybody would be


def test_sentences_are_weighed_by_their_queries():
    seen_TS = np.ones((4, 4), bool)
    maps = [towards(pointing({0: [1]}, 4, 4), seen_TS), towards(roles.shifted(4, 4, 0), seen_TS)]
    long = roles.Sentence({Head("cross", 0, 0): maps[1]}, [1, 2, 3, 4], [1, 2, 3, 4])
    short = roles.Sentence({Head("cross", 0, 0): maps[0][:1]}, [1, 2, 3, 4], [1])
    found = roles.find_roles([long, short])[Head("cross", 0, 0)]["diagonal"]
    assert found.queries == 5
    assert found.score == pytest.approx((4 * 0.925 + 0.025) / 5)


def test_an_induction_head_is_found_on_tokens_that_come_again():
    """7 8 9 7 8 9: each of the second half looks behind its own first time."""
    ids = [2, 7, 8, 9, 7, 8, 9]
    by_hand = pointing({4: [2], 5: [3], 6: [4]}, 7, 7)
    assert (roles.after_earlier(ids) == by_hand).all()
    seen_TS = np.tri(7, dtype=bool)
    maps = {
        Head("decoder", 0, 0): towards(by_hand, seen_TS),
        Head("decoder", 0, 1): towards(roles.shifted(7, 7, -1), seen_TS),
        Head("decoder", 0, 2): towards(pointing({4: [1], 5: [2], 6: [3]}, 7, 7), seen_TS),
    }
    found = roles.find_roles([roles.Sentence(maps, [], ids, is_random=True)])
    assert [found[head]["induction"].is_role for head in maps] == [True, False, False]
    assert all(set(scores) == {"induction"} for scores in found.values())


def test_a_head_that_resolves_the_pronoun():
    """the animal ... the street because it was too tired / wide: one resolves, one does not."""
    it, animal, street = 8, [0, 1], [5, 6]  # of "the animal did n't cross the street because it"

    def reading(place: list[int]) -> np.ndarray:
        return towards(pointing({it: place}, 12, 12), np.ones((12, 12), bool), weight=0.88)

    both = it, it
    resolves = roles.coreference_contrast(reading(animal), reading(street), both, animal, street)
    assert resolves == pytest.approx((0.88, -0.88))
    blind = roles.coreference_contrast(reading(animal), reading(animal), both, animal, street)
    assert blind == pytest.approx((0.88, 0.88))
    for bad in ([12], [-1], []):
        with pytest.raises(ValueError, match="not all within"):
            roles.coreference_contrast(reading(animal), reading(street), both, bad, street)
    with pytest.raises(ValueError, match="query 12"):
        roles.coreference_contrast(reading(animal), reading(street), (it, 12), animal, street)


def test_verbs_and_their_subjects_in_the_toy_language():
    """Every pair agrees in number, which the endings say."""
    source = data.build_source({"name": "toy_language", "num_train": 1, "num_test": 100}, "")
    tried = 0
    for example, side in itertools.product(source.pairs("test"), (0, 1)):
        words = (example.source, example.target)[side].split()
        pairs = head_roles.agreements(source, words, side)
        assert len(pairs) == 1 + words.count(("e", "und")[side])
        for verb, subject in pairs:
            if side:
                plural = words[verb].endswith("ent") or words[verb] == "wolen"
                assert plural == words[subject].endswith("en")
            else:
                assert words[verb].endswith("no") == words[subject].endswith(("i", "e"))
            tried += 1
    assert head_roles.agreements(data.build_source({"name": "copy"}, ""), ["a"], 0) == []
    print(f"{tried} verbs")


def test_pairs_of_words_are_pairs_of_their_tokens():
    assert head_roles.as_tokens([(1, 0)], [0, 0, 1, -1]) == [(2, 0), (2, 1)]


# ------------------------------------------------------------------ the command


def test_the_command_writes_a_table_and_joins_what_ablation_says(
    runs, tmp_path, monkeypatch, capsys
):
    """The previous-token head of layer 1 is planted, and the one whose removal hurts."""

    def plant(*arguments):
        weights = real(*arguments)
        maps_HTS = np.array(weights["decoder/layers_1/self_attention"])
        num = maps_HTS.shape[-1]
        maps_HTS[1] = towards(roles.shifted(num, num, -1), np.tri(num, dtype=bool))
        return weights | {"decoder/layers_1/self_attention": maps_HTS}

    import experiments.attention_payload as payload

    real = payload.attention_weights
    monkeypatch.setattr(payload, "attention_weights", plant)
    run = runs["transformer"]
    effects = {Head("decoder", 1, 1): {"change": 0.5}, Head("cross", 0, 0): {"change": 0.1}}
    monkeypatch.setattr(head_roles, "read_effects", lambda workdir: effects)
    output = tmp_path / "roles.csv"
    assert head_roles.main([f"--workdir={run}", "--limit=3", f"--output={output}"]) == 0
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == head_roles.COLUMNS
    named = [
        row for row in rows if (row["part"], row["layer"], row["head"]) == ("decoder", "1", "1")
    ]
    assert (named[0]["role"], named[0]["label"]) == ("previous token", "yes")
    assert float(named[0]["score"]) > 0.9
    out = capsys.readouterr().out
    assert "decoder 1.1, is the previous token head: +0.5000 nats per token" in out
    assert {row["role"] for row in rows} >= {"induction", "diagonal", "alignment", "next token"}
    assert len({(row["part"], row["layer"], row["head"]) for row in rows}) == 12


def test_a_language_model_has_roles_too(runs, tmp_path, capsys):
    output = tmp_path / "roles.csv"
    arguments = [f"--workdir={runs['language-model']}", "--limit=2", f"--output={output}"]
    assert head_roles.main(arguments) == 0
    found = {line.split(",")[3] for line in output.read_text().splitlines()[1:]}
    assert found >= {"previous token", "first token", "rare word", "induction"}
    assert "next token" not in found


@pytest.mark.parametrize(
    ("name", "more", "code", "words"),
    [
        (None, [], 64, "is not a run directory"),
        ("lstm", [], 64, "has no attention"),
        ("transformer", ["--checkpoint=9"], 64, "No checkpoint of step 9"),
        ("transformer", ["--output={}/no/roles.csv"], 74, "roles.csv"),
        ("transformer", ["--limit=0"], 64, "--limit"),
    ],
)
def test_what_is_wrong_is_one_line(runs, tmp_path, name, more, code, words, capsys):
    workdir = runs[name] if name else tmp_path
    more = [argument.format(tmp_path) for argument in more]
    assert head_roles.main([f"--workdir={workdir}", "--limit=1", *more]) == code
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_by_head_refuses_a_model_without_attention():
    with pytest.raises(ValueError, match="no attention"):
        by_head({})


def test_agreement_is_of_the_text_that_a_language_model_reads():
    """One token a word; in the decoder BOS stands before them."""
    source = data.build_source({"name": "toy_language", "num_train": 1, "num_test": 20}, "")
    differ = 0
    for example in source.pairs("test"):
        texts = {"source": example.source.split(), "target": example.target.split()}
        found = {}
        for number, (side, words) in enumerate(texts.items()):
            places = [*range(len(words)), -1]
            ids = np.arange(len(places))
            reading = Reading(ids[:0], ids, {}, [], [[], places], ("", side))
            sentence = head_roles.sentence_of(source, example, reading)
            expected = head_roles.agreements(source, words, number)
            found[side] = sentence.agreements["decoder"]
            assert found[side] == [(q + 1, k + 1) for q, k in sorted(expected)]
            both = reading._replace(sides=("", ""))
            assert not head_roles.sentence_of(source, example, both).agreements["decoder"]
        differ += found["source"] != found["target"]
    assert differ
