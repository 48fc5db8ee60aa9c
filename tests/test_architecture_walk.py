"""From RNN to Transformer: the hybrid model, its steps, and the experiment that walks."""

import csv
import itertools
import json

import jax
import numpy as np
import pytest
import trainer_cases
from model_cases import SEQ2SEQ, TRANSFORMER, apply, make, sources, tokens

import models
from configs import architecture_walk as steps
from configs.base import SEQ2SEQ as PRESETS
from errors import ConfigError
from experiments import architecture_walk

LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 2}
WHOLE = {"encoder_layers": "self_attention", "decoder_layers": "self_attention"}


def shapes_of(block):
    model = models.build(block, vocab_size=13)
    return jax.eval_shape(lambda: models.init(model, jax.random.key(0)))


def test_with_self_attention_in_both_halves_it_is_the_transformer():
    transformer, variables = make(SEQ2SEQ["transformer"])
    hybrid = models.build({"name": "hybrid_seq2seq", **WHOLE, **LAYERS, **TRANSFORMER}, 13)
    source_BS, inputs_BT = sources(), tokens(3, 7)
    expected = apply(transformer, variables, source_BS, inputs_BT)
    np.testing.assert_array_equal(apply(hybrid, variables, source_BS, inputs_BT), expected)


def test_each_step_adds_one_thing_and_the_last_is_the_preset():
    blocks = [steps.model_of(step, "tiny") for step in steps.STEPS]
    for before, after in itertools.pairwise(blocks):
        assert before.keys() == after.keys()
        assert sum(before[name] != after[name] for name in before) == 1
    preset = shapes_of(PRESETS["transformer-tiny"])
    assert jax.tree.structure(shapes_of(blocks[-1])) == jax.tree.structure(preset)
    assert shapes_of(blocks[-1]) == preset


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"positions": False, "encoder_layers": "self_attention"}, "positions"),
        ({"scan_layers": True}, "scan_layers must be False"),
        ({"layer_norm": "post"}, "layer_norm must be 'pre'"),
        ({"decoder_layers": "selfattention"}, "Did you mean 'self_attention'"),
        ({"d_model": 18}, "even multiple"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        shapes_of({"name": "hybrid_seq2seq", **LAYERS, **TRANSFORMER, **options})
    assert "\n" not in str(caught.value)


def test_the_walk_from_end_to_end(tmp_path, monkeypatch, capsys):
    trainer_cases.share_programs(monkeypatch)
    two = {name: steps.STEPS[name] for name in ("rnn", "multi_head")}
    monkeypatch.setattr(architecture_walk, "STEPS", two)
    data_dir = trainer_cases.make_data_dir(tmp_path / "data")
    arguments = [
        f"--out={tmp_path / 'walk'}",
        "--data=copy",
        "--seeds=2",
        "--smoke",
        f"--config.data_dir={data_dir}",
        "--config.model.d_model=8",
        "--config.model.d_ff=8",
        "--config.model.num_encoder_layers=1",
        "--config.model.num_decoder_layers=1",
        "--config.parallel.num_devices=1",
    ]
    assert architecture_walk.main(arguments) == 0
    assert "+ multi_head" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "walk/numbers.json").read_text())
    first, second = (row["per_seed"] for row in numbers["final"]["rows"])
    with (tmp_path / "walk/walk.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["rnn", "multi_head"]
    assert rows[0]["delta"] == ""
    assert float(rows[1]["delta"]) == pytest.approx(np.mean(second) - np.mean(first))
    assert float(rows[1]["p"]) in (0.5, 1.0)
    assert (tmp_path / "walk/walk.png").read_bytes()[:4] == b"\x89PNG"
    assert architecture_walk.main([f"--out={tmp_path / 'x'}", "--data=no/such/folder"]) == 64
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is not a folder" in said
