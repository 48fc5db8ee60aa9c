"""Language models become the parts of an encoder-decoder, and parts that stay as they are."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import trainer_cases
import translate_cases

import models
import tasks
import train
import trained
from configs.base import WITHOUT_COUNTERPART
from errors import ConfigError, DataError
from models.join import fill, match
from training import checkpoint_reader, schema
from training.freezing import freeze
from training.run_directory import RunDirectory
from trees import named_leaves

TRANSFORMER = {"d_model": 8, "num_heads": 2, "d_ff": 16}
FAMILY = {"positions": "learned", "embedding_norm": True, "use_output_bias": True, **TRANSFORMER}
RECURRENT = {"embedding_size": 8, "hidden_size": 12}
PAIRS = {
    "transformer": (
        {"name": "transformer_lm", "num_layers": 2, **TRANSFORMER},
        {"name": "transformer_seq2seq", "num_encoder_layers": 2, "num_decoder_layers": 2}
        | TRANSFORMER,
    ),
    "transformer-learned-positions": (
        {"name": "transformer_lm", "num_layers": 1, **FAMILY},
        {"name": "transformer_seq2seq", "num_encoder_layers": 1, "num_decoder_layers": 1} | FAMILY,
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
    parts = {"encoder": source, "decoder": target}
    joined = match(fresh, parts, WITHOUT_COUNTERPART)
    found, old = named_leaves(fill(fresh, parts, joined)), named_leaves(fresh)
    left, right = named_leaves(source), named_leaves(target)
    if name.startswith("transformer"):
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


def test_a_whole_model_goes_on_as_it_is_also_with_more_ids():
    _, block = PAIRS["transformer-learned-positions"]
    fresh, trained_ = params(block, 0), params(block, 1)
    joined = match(fresh, {"model": trained_})
    filled = fill(fresh, {"model": trained_}, joined)
    assert not joined.missing
    assert not joined.unused
    assert not joined.reshaped
    for new, old in zip(jax.tree.leaves(filled), jax.tree.leaves(trained_), strict=True):
        np.testing.assert_array_equal(new, old)
    trained_["embed"]["embedding"] = trained_["embed"]["embedding"][:-2]
    joined = match(fresh, {"model": trained_})
    assert joined.reshaped == ["embed/embedding"]
    filled = fill(fresh, {"model": trained_}, joined)["embed"]["embedding"]
    np.testing.assert_array_equal(filled[-2:], fresh["embed"]["embedding"][-2:])
    np.testing.assert_array_equal(filled[:-2], trained_["embed"]["embedding"])


def test_one_part_alone_leaves_the_other_fresh():
    language_model, model = PAIRS["transformer"]
    fresh = params(model, 0)
    parts = {"encoder": params(language_model, 1)}
    joined = match(fresh, parts, WITHOUT_COUNTERPART)
    for path, value in named_leaves(fill(fresh, parts, joined)["decoder"]).items():
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
        match(params(model, 0), parts, allow)
    assert "\n" not in str(caught.value)
    match(params(model, 0), parts, ("*",))


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
    """A folder with a run of a language model, "lm", one of another kind, "pairs", and "data"."""
    folder = tmp_path_factory.mktemp("join")
    data_dir = trainer_cases.make_data_dir(folder / "data")
    translate_cases.make_run(folder / "lm", data_dir, "lm-transformer-tiny")
    with RunDirectory(folder / "pairs").lock() as run:
        settings = trainer_cases.settings_of([command(folder)[0]])
        run.write_config(schema.to_json(settings))
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
    assert "parameters filled from trained models" in capsys.readouterr().err
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


# Name: (options, sentence, whether the data may have been read, and the model made).
REFUSALS = {
    "nowhere": (["--config.init_from.encoder={folder}/nowhere"], "is not a run directory", 0),
    "kind": (["--config.init_from.decoder={folder}/pairs"], "needs kind language_model", 0),
    "unknown part": (["--config.init_from.encodr={folder}/lm"], "encodr", 0),
    "tokenizer": (
        ["--config.task.tokenizer={{'name': 'characters'}}"],
        "was trained with another tokenizer",
        1,
    ),
    "sizes": (["--config.model.d_ff=128"], "have no counterpart", 2),
    "names": (["--config.init_from.allow=('*/cross_norm/*',)"], "cross_attention", 2),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_run_that_does_not_fit_is_one_line_before_anything_is_written(
    language_model_run, tmp_path, capsys, monkeypatch, name
):
    options, message, num_reached = REFUSALS[name]
    folder, new = language_model_run, tmp_path / "new"
    reached = []

    def noted(step, *arguments):
        reached.append(step)
        return step(*arguments)

    steps = {tasks: "build", train: "build_trainer"}
    for module, name_of_step in steps.items():
        step = functools.partial(noted, getattr(module, name_of_step))
        monkeypatch.setattr(module, name_of_step, step)
    options = [option.format(folder=folder) for option in options]
    assert train.main([*command(folder), f"--workdir={new}", *options]) == 64
    lines = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert message in lines[-1]
    assert len(reached) == num_reached
    assert not new.exists()


def test_a_run_with_a_checkpoint_needs_its_language_models_no_more(tmp_path, monkeypatch, capsys):
    def reached(*arguments):
        raise DataError("its data are read")

    monkeypatch.setattr(tasks, "build", reached)
    assert train.main(command(tmp_path)) == 64
    monkeypatch.setattr(train, "good_steps", lambda folder: [3])
    assert train.main(command(tmp_path)) == 65
    assert "its data are read" in capsys.readouterr().err
