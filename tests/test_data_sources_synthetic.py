"""Synthetic tasks and the toy language: right answers, known alignments, the same text for ever."""

from collections import defaultdict

import pytest

import data
from data.sources import toy_language

SYNTHETIC = ("copy", "reverse", "sort", "addition", "toy_language")
SMALL = {"num_train": 300, "num_validation": 40, "num_test": 40}


def build(name, **options):
    return data.build_source({"name": name, **options}, "")


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_seed_gives_one_text_and_another_seed_another(name):
    first, again, other = (build(name, seed=seed, **SMALL) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    for split in data.SPLITS:
        assert first.pairs(split) == again.pairs(split) != other.pairs(split)


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("copy", "c46aa3146afb"),
        ("reverse", "1856a693369e"),
        ("sort", "8c9bd849f2a8"),
        ("addition", "f2944d9df656"),
        ("toy_language", "c894740709bd"),
    ],
)
def test_the_text_of_a_seed_never_changes(name, fingerprint):
    """A run that resumes under another Python must see what it saw before."""
    assert build(name, **SMALL).fingerprint()[:12] == fingerprint


FEW_SYMBOLS = {"alphabet_size": 2, "max_length": 8}
FEW_WORDS = {"num_nouns": 1, "num_adjectives": 1, "num_verbs": 1, "max_clauses": 1}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("copy", FEW_SYMBOLS),
        ("reverse", FEW_SYMBOLS),
        ("sort", FEW_SYMBOLS),
        ("addition", {"max_length": 2}),
        ("toy_language", FEW_WORDS),
    ],
)
def test_no_string_stands_in_two_splits_nor_twice_in_a_held_out_one(name, options):
    """With so few different strings that chance alone would not keep them apart."""
    source = build(name, **SMALL, **options)
    texts = {split: [pair.source for pair in source.pairs(split)] for split in data.SPLITS}
    assert [len(texts[split]) for split in data.SPLITS] == [300, 40, 40]
    sets = {split: set(texts[split]) for split in data.SPLITS}
    assert not sets["train"] & (sets["validation"] | sets["test"])
    assert not sets["validation"] & sets["test"]
    assert len(sets["validation"]) == len(sets["test"]) == 40


@pytest.mark.parametrize(
    ("name", "answer"),
    [("copy", lambda x: x), ("reverse", lambda x: x[::-1]), ("sort", sorted)],
)
def test_answers_and_alignments_of_reordered_symbols(name, answer):
    pairs = build(name, alphabet_size=26, min_length=2, max_length=9, **SMALL).pairs("train")
    for pair in pairs:
        source, target = pair.source.split(), pair.target.split()
        assert target == list(answer(source))
        assert sorted(i for i, _ in pair.alignment) == list(range(len(source)))
        assert sorted(j for _, j in pair.alignment) == list(range(len(target)))
        assert all(source[i] == target[j] for i, j in pair.alignment)
    assert {len(pair.source.split()) for pair in pairs} == set(range(2, 10))
    print(f"{len(pairs)} pairs")


def test_equal_symbols_keep_their_order_in_sort():
    for pair in build("sort", alphabet_size=2, **SMALL).pairs("train"):
        source = pair.source.split()
        places = [i for i, _ in sorted(pair.alignment, key=lambda link: link[1])]
        assert places == sorted(range(len(source)), key=lambda i: (source[i], i))


def test_an_alphabet_may_have_more_symbols_than_letters():
    pairs = build("sort", alphabet_size=60, max_length=12, **SMALL).pairs("train")
    seen = {symbol for pair in pairs for symbol in pair.source.split()}
    assert len(seen) == 60
    assert {"a", "z", "a1", "h2"} <= seen
    assert "i2" not in seen


def test_addition_adds():
    pairs = build("addition", min_length=1, max_length=4, **SMALL).pairs("train")
    lengths = set()
    for pair in pairs:
        numbers = [side.replace(" ", "") for side in pair.source.split("+")]
        assert int(pair.target.replace(" ", "")) == int(numbers[0]) + int(numbers[1])
        assert all(number == str(int(number)) for number in numbers)
        lengths |= set(map(len, numbers))
    assert lengths == {1, 2, 3, 4}
    print(f"{len(pairs)} sums")


# --- the toy language ------------------------------------------------------------------------


def stem(word):
    return word[:5]  # all stems have five letters


def clauses(words, conjunction):
    """The words of each clause, with their places."""
    found = [[]]
    for place, word in enumerate(words):
        if word == conjunction:
            found.append([])
        else:
            found[-1].append((place, word))
    return found


def test_toy_language_translates_each_stem_in_one_way():
    source = build("toy_language", max_clauses=3, **SMALL)
    translations, back = defaultdict(set), defaultdict(set)
    known = {pair for part in (source.nouns, source.adjectives, source.verbs) for pair in part}
    num_links = 0
    for pair in source.pairs("train"):
        words, translation = pair.source.split(), pair.target.split()
        for i, j in pair.alignment:
            if len(words[i]) > 4 and translation[j] not in toy_language.FUTURE:
                assert (stem(words[i]), stem(translation[j])) in known
                translations[stem(words[i])].add(stem(translation[j]))
                back[stem(translation[j])].add(stem(words[i]))
            num_links += 1
    assert all(len(stems) == 1 for stems in (*translations.values(), *back.values()))
    assert len(translations) == 80  # all of the lexicon turns up
    print(f"{num_links} links")


def test_no_stem_of_the_toy_language_stands_for_two_words():
    source = build("toy_language", num_nouns=2000, num_adjectives=2000, num_verbs=2000)
    pairs = source.nouns + source.adjectives + source.verbs
    for language in (0, 1):
        assert len({pair[language] for pair in pairs}) == len(pairs) == 6000


def test_toy_language_aligns_every_word():
    for pair in build("toy_language", max_clauses=3, **SMALL).pairs("train"):
        assert {i for i, _ in pair.alignment} == set(range(len(pair.source.split())))
        targets = [j for _, j in pair.alignment]
        assert sorted(targets) == list(range(len(pair.target.split())))


def test_toy_language_reorders():
    """Adjectives stand after their noun and before it, the verb inside and at the end."""
    source = build("toy_language", max_clauses=2, **SMALL)
    nouns = {pair[0] for pair in source.nouns}
    adjectives = {pair[0] for pair in source.adjectives}
    verbs = {pair[1] for pair in source.verbs}
    num_adjectives = num_negated = num_future = num_objects = 0
    for pair in source.pairs("train"):
        words, translation = pair.source.split(), pair.target.split()
        first_target = {}
        for i, j in pair.alignment:
            first_target.setdefault(i, j)
        noun_at = None
        for i, word in enumerate(words):
            if stem(word) in nouns:
                noun_at = i
            elif stem(word) in adjectives:
                assert first_target[i] < first_target[noun_at]
                num_adjectives += 1
        for clause in clauses(translation, toy_language.TARGET_AND):
            tail = [word for _, word in clause]
            if tail[-1] == toy_language.TARGET_NOT:
                num_negated += 1
                tail.pop()
            if tail[-1] in toy_language.FUTURE:
                num_future += 1
                assert tail.pop(-2) in verbs
            else:
                assert tail[-1].endswith(toy_language.TARGET_VERBS)
                assert stem(tail[-1]) in verbs
            num_objects += sum(word in ("der", "dor", "dus", "das") for word in tail) - 1
    print(num_adjectives, num_negated, num_future, num_objects)
    assert min(num_adjectives, num_negated, num_future, num_objects) > 50


def test_toy_language_agrees():
    """Article, noun and adjectives share gender and number, each language its own gender."""
    source = build("toy_language", max_clauses=1, **SMALL)
    nouns = {pair[0]: genders for pair, genders in zip(source.nouns, source.genders, strict=True)}
    verbs = {pair[0] for pair in source.verbs}
    seen = set()
    for pair in source.pairs("train"):
        words, translation = pair.source.split(), pair.target.split()
        target_of = dict(reversed(pair.alignment))
        phrase, subject_number = None, None
        for i, word in enumerate(words):
            target = translation[target_of[i]]
            if stem(word) in nouns:
                genders = nouns[stem(word)]
                article = words[i - 1]
                number = int(article in ("li", "le"))
                phrase = (*genders, number)
                subject_number = number if subject_number is None else subject_number
                assert article == toy_language.SOURCE_ARTICLES[genders[0]][number]
                assert word[5:] == toy_language.SOURCE_ENDINGS[genders[0]][number]
                assert target[5:] == toy_language.TARGET_PLURAL * number
                there = translation[target_of[i - 1]]
                assert there == toy_language.TARGET_ARTICLES[genders[1]][number]
                seen.add(phrase)
            elif stem(word) in verbs:
                future = "er" in word[5:]
                assert word[5:] == toy_language.SOURCE_VERBS[future][subject_number]
                if not future:
                    assert target[5:] == toy_language.TARGET_VERBS[subject_number]
            elif len(word) > 4:
                assert word[5:] == toy_language.SOURCE_ENDINGS[phrase[0]][phrase[2]]
                assert target[5:] == toy_language.TARGET_ENDINGS[phrase[1]][phrase[2]]
    assert len(seen) == 8  # every pair of genders in both numbers
    print(f"{len(seen)} kinds of noun phrases")
