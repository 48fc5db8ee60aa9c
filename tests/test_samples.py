"""Texts that a language model writes when its run ends."""

import jax
import pytest
from test_objectives import LM, build

import models
from data.tokenizers import Bytes
from tasks import samples


@pytest.mark.parametrize(
    ("name", "side"),
    [("language_modelling", side) for side in ("source", "target", "both")]
    + [("prefix_language_modelling", "target")],
)
def test_a_language_model_writes_other_ends_to_the_first_texts(data_dir, name, side):
    options = {"side": side, "sequence_length": 32, "sequences_per_batch": 4, "num_samples": 3}
    task, model = build(data_dir, name, LM, **options)
    variables = models.init(model, jax.random.key(0))
    found = task.evaluate(model, variables, "test")
    examples = task.texts.pairs("test")[:3]
    assert len(found.samples) == 3
    for sample, example in zip(found.samples, examples, strict=True):
        assert list(sample) == ["prompt", "reference", "sample"]
        if side == "both":
            assert (sample["prompt"], sample["reference"]) == (example.source, example.target)
        else:
            text = getattr(example, side)
            assert sample["prompt"] + sample["reference"] == task.tokenizer.decode(
                task.tokenizer.encode(text)
            )
            assert sample["prompt"]
            assert sample["reference"]
        words = sample["sample"].split()
        assert 0 < len(words) <= samples.SAMPLE_LENGTH
        assert all(task.tokenizer.encode(word) for word in words)
    assert found == task.evaluate(model, variables, "test"), "drawn with the same seeds"
    task, model = build(data_dir, name, LM, **options | {"num_samples": 0})
    assert not task.evaluate(model, variables, "test").samples


def test_samples_leave_half_of_the_positions_to_the_prompt(data_dir):
    """Of a model that has as few as the row that it learns."""
    model = {**LM, "positions": "learned", "max_positions": 16}
    options = {"sequence_length": 16, "sequences_per_batch": 4, "num_samples": 2}
    task, model = build(data_dir, "language_modelling", model, **options)
    found = task.evaluate(model, models.init(model, jax.random.key(0)), "test")
    assert max(len(sample["sample"].split()) for sample in found.samples) <= 8


@pytest.mark.parametrize("text", ["è", "aè", "perché là", "Città e virtù, così è: più giù"])
def test_a_prompt_ends_between_characters(text):
    tokenizer = Bytes()
    prompt, rest = samples.halves(tokenizer, text)
    assert prompt + rest == text
    assert len(prompt.encode()) <= samples.PROMPT_LENGTH
