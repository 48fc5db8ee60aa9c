"""Language models become the parts of an encoder-decoder, and parts that stay as they are."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import trainer_cases

import models
import train
import trained
from configs.base import WITHOUT_COUNTERPART
from errors import ConfigError
from models.join import join
from training import checkpoint_reader
from training.freezing import freeze
from trees import named_leaves

TRANSFORMER = {"d_model": 8, "num_heads": 2, "d_ff": 16}
RECURRENT = {"embedding_size": 8, "hidden_size": 12}
PAIRS = {
    "transformer": (
        {"name": "transformer_lm", "num_layers": 2, **TRANSFORMER},
        {"name": "transformer_seq2seq", "num_encoder_layers": 2, "num_decoder_layers": 2}
        | TRANSFORMER,
    ),
    "lstm": (
        {"name": "recurrent_lm", "num_layers": 2, **RECURRENT},
        {"name": "recurrent_seq2seq", "num_encoder_layers": 2, "num_decoder_layers": 2} | RECURRENT,
    ),
    "lstm-luong": (
        {"name": "recurrent_lm", "num_layers": 2, **RECURRENT},
        {"name": "recurrent_seq2seq", "encoder": "reversed", "context_to": "output"}
        | {"num_encoder_layers": 2, "num_decoder_layers": 2, **RECURRENT},
    ),
    "lstm-none": (
        {"name": "recurrent_lm", "num_layers": 2, **RECURRENT},
        {"name": "recurrent_seq2seq", "attention": "none", "num_decoder_layers": 2}
        | {"num_encoder_layers": 2, **RECURRENT},
    ),
}


def params(block: dict, seed: int) -> dict:
    model = models.build(block, 11)
    fresh = models.init(model, jax.random.key(0))["params"]
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), fresh)


@pytest.mark.parametrize("name", PAIRS)
def test_each_parameter_of_a_part_comes_from_its_language_model(name):
    language_model, model = PAIRS[name]
    fresh, source, target = params(model, 0), params(language_model, 1), params(language_model, 2)
    joined = join(fresh, {"encoder": source, "decoder": target}, WITHOUT_COUNTERPART)
    found, old = named_leaves(joined.params), named_leaves(fresh)
    left, right = named_leaves(source), named_leaves(target)
    if name == "transformer":
        origin = {n: left[n.replace("encoder", "decoder")] for n in found if "encoder" in n}
        origin |= {n: right[n] for n in found if n in right}
        assert not joined.reshaped
    else:
        first, second = {
            "lstm": ("attention_decoder", "decoder/layers_0"),
            "lstm-luong": ("decoder/layers_0", "attention_decoder"),
            "lstm-none": ("decoder/layers_0", "decoder/layers_1"),
        }[name]
        forward = "" if name == "lstm-luong" else "/forward"
        origin = {"embed/embedding": right["embed/embedding"]}
        for kind in ("unit/input/kernel", "unit/input/bias", "unit/recurrent"):
            origin[f"encoder_0{forward}/{kind}"] = left[f"stack/layers_0/{kind}"]
            origin[f"encoder_1{forward}/{kind}"] = left[f"stack/layers_1/{kind}"]
            origin[f"{first}/{kind}"] = right[f"stack/layers_0/{kind}"]
            origin[f"{second}/{kind}"] = right[f"stack/layers_1/{kind}"]
        origin |= {f"readout/{kind}": right[f"readout/{kind}"] for kind in ("kernel", "bias")}
        wider = {"attention_decoder/unit/recurrent"} if name == "lstm" else set()
        wider |= set() if name == "lstm-luong" else {"encoder_1/forward/unit/input/kernel"}
        assert wider <= set(joined.reshaped)
    assert set(joined.matched) | set(joined.reshaped) == set(origin)
    for path, value in found.items():
        expected = np.array(old[path])
        if path in origin:
            expected[tuple(slice(0, size) for size in origin[path].shape)] = origin[path]
        np.testing.assert_array_equal(value, expected, err_msg=path)


def test_one_part_alone_leaves_the_other_fresh():
    language_model, model = PAIRS["transformer"]
    fresh = params(model, 0)
    joined = join(fresh, {"encoder": params(language_model, 1)}, WITHOUT_COUNTERPART)
    for path, value in named_leaves(joined.params["decoder"]).items():
        np.testing.assert_array_equal(value, named_leaves(fresh["decoder"])[path])
    assert not joined.missing


@pytest.mark.parametrize(
    ("changes", "allow", "message"),
    [
        ({}, (), "cross_attention"),
        ({"d_ff": 20}, WITHOUT_COUNTERPART, "decoder/layers_0/feed_forward/hidden/bias"),
        ({"num_layers": 1}, WITHOUT_COUNTERPART, "layers_1"),
        ({"num_layers": 3}, WITHOUT_COUNTERPART, "decoder: decoder/layers_2"),
    ],
)
def test_what_has_no_counterpart_is_an_error_unless_allowed(changes, allow, message):
    language_model, model = PAIRS["transformer"]
    parts = {"decoder": params({**language_model, **changes}, 1)}
    with pytest.raises(ConfigError, match=message) as caught:
        join(params(model, 0), parts, allow)
    assert "\n" not in str(caught.value)
    join(params(model, 0), parts, ("*",))


def test_frozen_parameters_keep_every_bit_and_others_move():
    import optax

    tree = {"a": {"x": np.ones(2, np.float32)}, "b": {"x": np.ones(2, np.float32)}}
    optimizer = freeze(optax.sgd(0.1), tree, ("a/*",))
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    new = optax.apply_updates(tree, updates)
    np.testing.assert_array_equal(new["a"]["x"], tree["a"]["x"])
    assert (new["b"]["x"] < 1).all()
    with pytest.raises(ConfigError, match="Did you mean 'a/x'"):
        freeze(optax.sgd(0.1), tree, ("a/xx",))
    with pytest.raises(ConfigError, match="no parameter to train"):
        freeze(optax.sgd(0.1), tree, ("*",))


@pytest.fixture(scope="module")
def language_model_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("join")
    data_dir = trainer_cases.make_data_dir(folder / "data")
    options = [
        "--config=configs/language_model.py:model=lm-transformer-tiny,smoke",
        f"--workdir={folder / 'lm'}",
        f"--config.data_dir={data_dir}",
        "--config.parallel.num_devices=1",
    ]
    assert train.main(options) == 0
    return folder


def command(folder: Path, *more: str) -> list[str]:
    return [
        "--config=configs/translation.py:model=transformer-tiny,smoke",
        f"--workdir={folder / 'joined'}",
        f"--config.data_dir={folder / 'data'}",
        "--config.parallel.num_devices=1",
        f"--config.init_from.encoder={folder / 'lm'}",
        f"--config.init_from.decoder={folder / 'lm'}",
        *more,
    ]


def test_a_run_begins_with_its_language_models_and_says_so(language_model_run, capsys):
    folder = language_model_run
    assert train.main(command(folder, "--config.freeze=('encoder/*',)")) == 0
    assert "parameters filled from language models" in capsys.readouterr().err
    journal = (folder / "joined" / "journal.jsonl").read_text()
    rows = [json.loads(line) for line in journal.splitlines()]
    event = next(row for row in rows if row["event"] == "init_from")
    assert "encoder/norm/scale" in event["matched"]
    assert all("cross" in name for name in event["missing"])
    before = named_leaves(trained.load_run(folder / "lm", "language_model").variables["params"])
    _, after, _ = checkpoint_reader.load(folder / "joined" / "checkpoints", None, "params")
    for name, value in named_leaves(after["encoder"]).items():
        np.testing.assert_array_equal(value, before[f"decoder/{name}"], err_msg=name)
    assert (named_leaves(after["decoder"])["norm/scale"] != before["decoder/norm/scale"]).any()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config.init_from.encoder={folder}/nowhere"], "is not a run directory"),
        (["--config.init_from.encoder={folder}/joined"], "not a language_model"),
        (["--config.task.tokenizer={{'name': 'characters'}}"], "another tokenizer"),
        (["--config.model.d_ff=128"], "have no counterpart"),
    ],
)
def test_a_run_that_does_not_fit_is_one_line(language_model_run, tmp_path, capsys, more, message):
    folder = language_model_run
    more = [option.format(folder=folder) for option in more]
    if "joined" in more[0] and not (folder / "joined").exists():
        train.main(command(folder))
    capsys.readouterr()
    assert train.main([*command(folder), f"--workdir={tmp_path / 'new'}", *more]) == 64
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
