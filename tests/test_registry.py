"""Options are what a signature says, and a wrong one is named in one line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

import registry
from errors import ConfigError
from registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range, Rate


@dataclass
class Thing:
    """One option of each type."""

    given: int
    size: PositiveInt = 4
    skip: NonNegativeInt = 0
    scale: PositiveFloat = 1.0
    decay: NonNegativeFloat = 0.0
    rate: Rate = 0.1
    share: Annotated[float, Range(0, 1)] = 1.0
    flag: bool = False
    text: str = "a"
    mode: Literal["pre", "post", 2] = "pre"
    limit: PositiveInt | None = None
    bounded: Annotated[int | None, Range(max=3)] = None
    shape: tuple[int, PositiveInt] = (0, 1)
    sizes: tuple[PositiveInt, ...] = ()
    anything: tuple = ()
    block: Mapping[str, Any] | None = None


def plain_function(given: int, width: PositiveInt, *rest: int, depth: int = 1, **more: int) -> dict:
    return {"given": given, "width": width, "depth": depth}


TABLE = {"thing": Thing, "plain": plain_function}

GOOD = [
    ("size", 1, 1),
    ("skip", 0, 0),
    ("scale", 2, 2.0),  # a whole number is a number
    ("decay", 0, 0.0),
    ("rate", 0, 0.0),
    ("share", 1, 1.0),
    ("flag", True, True),
    ("mode", "post", "post"),
    ("mode", 2, 2),
    ("limit", None, None),
    ("limit", 3, 3),
    ("bounded", None, None),
    ("bounded", -5, -5),
    ("shape", [5, 6], (5, 6)),  # JSON has no tuples
    ("sizes", [], ()),
    ("sizes", (1, 2, 3), (1, 2, 3)),
    ("anything", ["a", 1.5], ("a", 1.5)),
    ("block", {"name": "x", "deep": {"er": 1}}, {"name": "x", "deep": {"er": 1}}),
    ("block", None, None),
    ("text", "", ""),
]


def test_good_values_are_kept_and_converted():
    print(f"{len(GOOD)} values")
    for name, value, expected in GOOD:
        built = registry.build("thing", TABLE, {"name": "thing", name: value}, "config.x", given=7)
        found = getattr(built, name)
        assert found == expected, name
        assert type(found) is type(expected), name
        assert built.given == 7


BAD = [
    ("size", 0, "config.x.size must be a whole number of at least 1, got 0."),
    ("size", 1.0, "config.x.size must be a whole number of at least 1, got 1.0."),
    ("size", True, "config.x.size must be a whole number"),
    ("size", "4", "config.x.size must be a whole number of at least 1, got '4'."),
    ("size", None, "config.x.size must be a whole number"),
    ("skip", -1, "config.x.skip must be a whole number of at least 0, got -1."),
    ("scale", 0, "config.x.scale must be a number above 0, got 0"),
    ("scale", math.nan, "config.x.scale must be a number above 0, got nan."),
    ("scale", math.inf, "config.x.scale must be a number above 0, got inf."),
    ("scale", 10**400, "config.x.scale must be a number above 0, got 1000"),
    ("scale", False, "config.x.scale must be a number above 0, got False."),
    ("decay", -1e-9, "config.x.decay must be a number of at least 0, got -1e-09."),
    ("rate", 1, "config.x.rate must be a number of at least 0 and below 1, got 1"),
    ("share", 1.1, "config.x.share must be a number of at least 0 and of at most 1, got 1.1."),
    ("flag", 1, "config.x.flag must be true or false, got 1."),
    ("flag", "true", "config.x.flag must be true or false, got 'true'."),
    ("text", 3, "config.x.text must be a text, got 3."),
    ("text", "a\0b", "config.x.text must be a text"),
    ("text", ["a"], "config.x.text must be a text, got ['a']."),
    (
        "mode",
        "Post",
        "config.x.mode: Unknown value: 'Post'. Did you mean 'post'? Known: 2, post, pre.",
    ),
    ("mode", 2.0, "config.x.mode: Unknown value: 2.0."),
    ("mode", [], "config.x.mode: Unknown value: []."),
    ("limit", 0, "config.x.limit must be a whole number of at least 1, got 0."),
    ("bounded", 4, "config.x.bounded must be a whole number of at most 3, got 4."),
    ("shape", 3, "config.x.shape must be a list, got 3."),
    ("shape", [1], "config.x.shape must have 2 values, got [1]."),
    ("shape", [1, 0], "config.x.shape[1] must be a whole number of at least 1, got 0."),
    ("sizes", [1, 2, "x"], "config.x.sizes[2] must be a whole number"),
    ("sizes", "12", "config.x.sizes must be a list, got '12'."),
    ("block", 3, "config.x.block must be a block, got 3."),
    ("text", {"a": "\n" * 500}, "config.x.text must be a text, got {'a': "),
    (
        "siez",
        4,
        "config.x: Unknown option of thing 'thing': 'siez'. Did you mean 'size'? Known: an",
    ),
    ("given", 4, "config.x: Unknown option of thing 'thing': 'given'."),
    ("zzz\nyyy", 4, "config.x: Unknown option of thing 'thing': 'zzz\\nyyy'. Known: anything,"),
]


def test_bad_values_are_named_in_one_line():
    print(f"{len(BAD)} values")
    for name, value, expected in BAD:
        with pytest.raises(ConfigError) as caught:
            registry.build("thing", TABLE, {"name": "thing", name: value}, "config.x", given=7)
        message = str(caught.value)
        assert message.startswith(expected), (message, expected)
        assert message.endswith(".")
        assert "\n" not in message
        assert len(message) < 400


BLOCKS = [
    (None, "config.x must be a block with a name, got None."),
    ("thing", "config.x must be a block with a name, got 'thing'."),
    ({}, "config.x.name is missing. Known: plain, thing."),
    ({"name": "think"}, "config.x.name: Unknown part: 'think'. Did you mean 'thing'? Known: plain"),
    ({"name": ["thing"]}, "config.x.name: Unknown part: ['thing']."),
    ({"name": None}, "config.x.name: Unknown part: None."),
    ({"name": "plain"}, "config.x.width is missing: part 'plain' has no default for it."),
    ({"name": "plain", "width": 2, "rest": 1}, "config.x: Unknown option of part 'plain': 'rest'."),
    ({"name": "plain", "width": 2, "more": 1}, "config.x: Unknown option of part 'plain': 'more'."),
]


def test_bad_blocks_are_named_in_one_line():
    print(f"{len(BLOCKS)} blocks")
    for block, expected in BLOCKS:
        with pytest.raises(ConfigError) as caught:
            registry.build("part", TABLE, block, "config.x", given=7)
        assert str(caught.value).startswith(expected), caught.value


def test_the_nearest_word_sees_through_capitals_and_dashes():
    known = ["lstm-attention-small", "transformer-small", "transformer-tiny", "p-q-r-s"]
    cases = {
        "LSTM_attention_small": "lstm-attention-small",
        "Transformer-Tiny": "transformer-tiny",
        "transfomer-smal": "transformer-small",
        "P_Q_R_S": "p-q-r-s",
    }
    for got, near in cases.items():
        assert f"Did you mean '{near}'?" in registry.unknown("model", got, known)
    assert "Did you mean" not in registry.unknown("model", "perceptron", known)


def test_defaults_are_filled_in_and_given_values_win():
    skip = ("given", "block", "anything")
    filled = registry.with_defaults(Thing, {"rate": 0.5}, skip)
    assert filled["rate"] == 0.5
    assert filled["size"] == 4
    assert not set(skip) & set(filled)
    assert registry.with_defaults(plain_function, {"width": 3}) == {"depth": 1, "width": 3}
