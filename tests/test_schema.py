"""A config is checked as a whole, kept as JSON, and compared when a run is resumed."""

import copy
import dataclasses
import json

import pytest

import models
import tasks
from errors import ConfigError
from training import schema
from training.config_files import load_config

TABLES = {"models": models.MODELS, "tasks": tasks.TASKS}
MAY_CHANGE = tasks.TASKS["translation"].may_change


def resolved(arg="model=transformer-tiny"):
    return schema.validate(load_config(f"configs/translation.py:{arg}"), **TABLES)


def changed(settings, path, value):
    """A copy with one field set, "a.b.c"; REMOVED takes it away."""
    settings = copy.deepcopy(settings)
    *blocks, last = path.split(".")
    block = settings
    for name in blocks:
        block = block[name]
    if value is REMOVED:
        del block[last]
    else:
        block[last] = value
    return settings


REMOVED = object()
BYTES = {"name": "bytes"}

# field, value, the field that the message begins with, and what else it says
MALFORMED = [
    ("seed", -1, "config.seed", "at least 0"),
    ("seed", 1.5, "config.seed", "whole number"),
    ("seed", 2**70, "config.seed", "at most"),
    ("seed", "0", "config.seed", "whole number"),
    ("num_steps", 0, "config.num_steps", "of at least 1 and of at most 2147483647, got 0."),
    ("num_steps", None, "config.num_steps", "whole number"),
    ("data_dir", 3, "config.data_dir", "a text"),
    ("accumulate", 0, "config.accumulate", "at least 1"),
    ("ema_decay", 1.0, "config.ema_decay", "below 1"),
    ("average_checkpoints", -1, "config.average_checkpoints", "at least 0"),
    ("average_checkpoints", 9, "config.average_checkpoints", "config.keep_checkpoints"),
    ("early_stopping_patience", 0.5, "config.early_stopping_patience", "whole number"),
    ("max_skipped_steps", 0, "config.max_skipped_steps", "at least 1"),
    ("log_every", 0, "config.log_every", "at least 1"),
    ("eval_every", -5, "config.eval_every", "at least 1"),
    ("save_every", True, "config.save_every", "whole number"),
    ("keep_checkpoints", 1, "config.keep_checkpoints", "at least 2"),
    ("final_split", "tset", "config.final_split", "'test'"),
    ("task", REMOVED, "config.task", "missing"),
    ("task", "translation", "config.task", "block"),
    ("task.name", "translatoin", "config.task.name", "'translation'"),
    ("task.num_beam", 3, "config.task", "'num_beams'"),
    ("task.seed", 3, "config.task", "'seed'"),
    ("task.num_beams", 0, "config.task.num_beams", "at least 1"),
    ("task.label_smoothing", 1, "config.task.label_smoothing", "below 1"),
    ("task.tokens_per_batch", "2k", "config.task.tokens_per_batch", "whole number"),
    ("task.source", REMOVED, "config.task.source", "missing"),
    ("task.source", [], "config.task.source", "block"),
    ("task.source.name", "bibel", "config.task.source.name", "'bible'"),
    ("task.source.source_language", "itt", "config.task.source.source_language", "'it'"),
    ("task.source.cache_dir", "x", "config.task.source", "'cache_dir'"),
    ("task.source", {"name": "folder"}, "config.task.source.path", "missing"),
    ("task.source", {"name": "copy", "max_lenght": 3}, "config.task.source", "'max_length'"),
    ("task.tokenizer", {}, "config.task.tokenizer.name", "bpe"),
    ("task.tokenizer.vocab_size", 0, "config.task.tokenizer.vocab_size", "at least"),
    ("task.tokenizer", BYTES | {"vocab_size": 9}, "config.task.tokenizer", "'vocab_size'"),
    ("model", {}, "config.model.name", "transformer_lm"),
    ("model.name", "transformer_seq2sec", "config.model.name", "'transformer_seq2seq'"),
    ("model.d_modle", 64, "config.model", "'d_model'"),
    ("model.vocab_size", 64, "config.model", "'vocab_size'"),
    ("model.d_model", 0, "config.model.d_model", "at least 1"),
    ("model.dropout_rate", 1.0, "config.model.dropout_rate", "below 1"),
    ("model.dtype", "float16", "config.model.dtype", "'bfloat16'"),
    ("model.layer_norm", "prev", "config.model.layer_norm", "'pre'"),
    ("model.remat", 1, "config.model.remat", "Known: False, True, dots, matrices, offload"),
    ("optimizer.name", "adam", "config.optimizer.name", "'adamw'"),
    ("optimizer.lerning_rate", 1.0, "config.optimizer", "'learning_rate'"),
    ("optimizer.learning_rate", 0.0, "config.optimizer.learning_rate", "above 0"),
    ("optimizer.learning_rate", float("nan"), "config.optimizer.learning_rate", "nan"),
    ("optimizer.learning_rate", REMOVED, "config.optimizer.learning_rate", "missing"),
    ("optimizer.clip_norm", -1, "config.optimizer.clip_norm", "at least 0"),
    ("optimizer.clip.name", "adaptiv", "config.optimizer.clip.name", "'adaptive'"),
    ("optimizer.clip.limit", 1.0, "config.optimizer.clip", "'limit'"),
    ("diagnose_every", -1, "config.diagnose_every", "at least 0"),
    ("optimizer.b1", 1.0, "config.optimizer.b1", "below 1"),
    ("optimizer.momentum", 0.9, "config.optimizer", "'momentum'"),
    ("optimizer.schedule", "cosine", "config.optimizer.schedule", "block"),
    ("optimizer.schedule.name", "cosinus", "config.optimizer.schedule.name", "'cosine'"),
    ("optimizer.schedule.warmup", 3, "config.optimizer.schedule", "'warmup_steps'"),
    ("optimizer.schedule.learning_rate", 3, "config.optimizer.schedule", "'learning_rate'"),
    ("optimizer.schedule.warmup_steps", 10**6, "config.optimizer.schedule.warmup", "num_steps"),
    ("parallel.strategy", "pmpa", "config.parallel.strategy", "'pmap'"),
    ("parallel.devices", 2, "config.parallel", "'num_devices'"),
    ("parallel.num_devices", -1, "config.parallel.num_devices", "at least 0"),
    ("parallel.mesh", [1, 1], "config.parallel.mesh", "3 values"),
    ("parallel.mesh", [1, 1, 0], "config.parallel.mesh[2]", "at least 1"),
    ("parallel.canonical_shards", 1.0, "config.parallel.canonical_shards", "whole number"),
    ("sede", 1, "config", "'seed'"),
    ("optimiser", {}, "config", "'optimizer'"),
    ("seed", {1, 2}, "config.seed", "{1, 2}"),
]


def test_a_malformed_config_is_one_line_that_names_the_field():
    good = resolved()
    for path, value, field, words in MALFORMED:
        with pytest.raises(ConfigError) as caught:
            schema.validate(changed(good, path, value), **TABLES)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(field), (path, message)
        assert words in message or path == "seed", (path, message)
    print(f"{len(MALFORMED)} configs")


def test_fields_that_are_wrong_only_together():
    good = resolved()
    shards = changed(good, "parallel.canonical_shards", 8)
    assert schema.validate(shards, **TABLES) == shards
    mesh, recurrent = changed(good, "parallel.strategy", "mesh"), {"name": "recurrent_seq2seq"}
    cube = changed(mesh, "parallel.mesh", (2, 2, 2))
    cases = [
        (changed(shards, "parallel.strategy", "mesh"), "canonical_shards.*strategy 'pmap'"),
        (changed(shards, "accumulate", 2), "accumulate"),
        (changed(mesh, "model", recurrent | {"remat_chunk": 2}), "remat_chunk .2. needs"),
        (
            changed(cube, "model", {"name": "convolutional_seq2seq"}),
            "spreads convolutional_seq2seq",
        ),
        (changed(good, "parallel.rules.embed", ("data",)), "rules needs .*'mesh', got 'pmap'"),
        (changed(good, "model", {"name": "recurrent_lm"}), "needs a seq2seq, but model recurrent_"),
        (changed(good, "average_checkpoints", 4), "average_checkpoints.*keep_checkpoints"),
    ]
    for config, pattern in cases:
        with pytest.raises(ConfigError, match=pattern):
            schema.validate(config, **TABLES)
    assert schema.validate(changed(good, "average_checkpoints", 3), **TABLES)
    print(f"{len(cases)} configs")


def test_defaults_of_all_options_are_recorded():
    settings = resolved()
    assert settings["model"]["layer_norm"] == models.MODELS["transformer_seq2seq"].layer_norm
    assert settings["optimizer"]["b1"] == 0.9
    assert settings["optimizer"]["schedule"]["final_rate"] == 0.0
    assert settings["parallel"]["mesh"] == (0, 1, 1)
    assert "vocab_size" not in settings["model"]
    assert {"seed", "data_dir"}.isdisjoint(settings["task"])


def test_a_resolved_config_comes_back_from_json(tmp_path):
    settings = resolved()
    file = tmp_path / "config.json"
    file.write_text(json.dumps(schema.to_json(settings), sort_keys=True), encoding="utf-8")
    again = schema.validate(load_config(str(file)), **TABLES)
    assert again == settings
    assert schema.compare_for_resume(schema.to_json(settings), again) == []
    assert schema.validate(again, **TABLES) == again


# 40 changes of what is learned, from what, or how.
REFUSED = [
    ("seed", 1),
    ("task.name", "language_modelling"),
    ("task.source.name", "folder"),
    ("task.source.source_language", "fr"),
    ("task.source.target_language", "es"),
    ("task.source", {"name": "folder", "path": "x"}),
    ("task.source", {"name": "copy"}),
    ("task.source", {"name": "toy_language", "num_train": 10}),
    ("task.tokenizer.name", "unigram"),
    ("task.tokenizer.vocab_size", 4001),
    ("task.tokenizer", BYTES),
    ("task.tokenizer", {"name": "words", "vocab_size": 4000}),
    ("task.tokens_per_batch", 2049),
    ("task.max_length", 99),
    ("task.num_buckets", 4),
    ("task.label_smoothing", 0.11),
    ("model.name", "recurrent_seq2seq"),
    ("model", {"name": "recurrent_seq2seq", "hidden_size": 64}),
    ("model.d_model", 128),
    ("model.num_heads", 8),
    ("model.d_ff", 512),
    ("model.num_encoder_layers", 3),
    ("model.num_decoder_layers", 1),
    ("model.dropout_rate", 0.3),
    ("model.layer_norm", "post"),
    ("model.tie_embeddings", False),
    ("model.attention", "dot_product"),
    ("model.dtype", "bfloat16"),
    ("model.scan_layers", True),
    ("model.d_model", REMOVED),
    ("optimizer.name", "sgd"),
    ("optimizer.b1", 0.8),
    ("optimizer.b2", 0.999),
    ("optimizer.eps", 1e-8),
    ("optimizer.weight_decay", 0.01),
    ("optimizer.clip_norm", 0.5),
    ("optimizer.clip", {"name": "value", "limit": 1.0}),
    ("optimizer.momentum", 0.9),
    ("accumulate", 2),
    ("ema_decay", 0.99),
    ("parallel.canonical_shards", 8),
]
# 20 changes that another command may make; those of the second list leave no trace.
RECORDED = [
    ("num_steps", 10_000),
    ("optimizer.learning_rate", 5e-4),
    ("optimizer.schedule.warmup_steps", 7),
    ("optimizer.schedule.final_rate", 0.1),
    ("optimizer.schedule", {"name": "constant", "warmup_steps": 0}),
    ("eval_every", 7),
    ("save_every", 7),
    ("keep_checkpoints", 7),
    ("average_checkpoints", 2),
    ("early_stopping_patience", 3),
    ("max_skipped_steps", 3),
    ("final_split", "validation"),
    ("task.num_beams", 4),
    ("task.length_penalty", 0.6),
]
SILENT = [
    ("data_dir", "elsewhere"),
    ("log_every", 1),
    ("parallel.strategy", "mesh"),
    ("parallel.num_devices", 4),
    ("parallel.mesh", [2, 2, 2]),
    ("parallel.rules.embed", ["data"]),
    ("seed", 0),
]


def test_another_pipeline_is_refused_with_its_field():
    old = resolved()
    for path, value in REFUSED:
        new = changed(old, path, value)
        with pytest.raises(ConfigError) as caught:
            schema.compare_for_resume(schema.to_json(old), new, MAY_CHANGE)
        message = str(caught.value)
        assert message.startswith(f"config.{path}"), message
        assert "\n" not in message
        if value is not REMOVED and not isinstance(value, dict):
            assert repr(value) in message
    assert len(REFUSED) == 41
    print(f"{len(REFUSED)} changes refused")


def test_harmless_changes_are_not_refused():
    old = resolved()
    for path, value in RECORDED:
        new = changed(old, path, value)
        changes = schema.compare_for_resume(schema.to_json(old), new, MAY_CHANGE)
        assert changes, path
        assert all(change.path.startswith(f"config.{path}") for change in changes)
        if not isinstance(value, dict):
            assert changes[0].new == value
    for path, value in SILENT:
        new = changed(old, path, value)
        assert schema.compare_for_resume(schema.to_json(old), new, MAY_CHANGE) == [], path
    assert len(RECORDED + SILENT) == 21
    print(f"{len(RECORDED + SILENT)} changes accepted")


def leaves(block, prefix=""):
    for name, value in block.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_field_has_a_class():
    paths = list(leaves(resolved()))
    classes = {path: schema.resume_class(path, MAY_CHANGE) for path in paths}
    assert {type(found) for found in classes.values()} == {schema.Resume}
    named = {field.name for field in dataclasses.fields(schema.Config)}
    assert named == {path.split(".")[0] for path in paths}
    assert schema.resume_class("optimizer.schedule.name") is schema.Resume.MAY_CHANGE
    assert schema.resume_class("optimizer.name") is schema.Resume.MUST_MATCH
    assert schema.resume_class("task.num_beams") is schema.Resume.MUST_MATCH
    assert schema.resume_class("parallel.unheard_of") is schema.Resume.MUST_MATCH
    print(f"{len(paths)} fields")


@pytest.mark.parametrize("field", ["init_from", "freeze", "diagnose_every"])
def test_a_config_that_is_older_than_a_field_has_what_runs_did_then(field):
    settings = resolved() | {"diagnose_every": 0, **schema.OLDER}
    filled = schema.validate(changed(settings, field, REMOVED), **TABLES)
    assert schema.to_json(filled) == schema.to_json(settings)
