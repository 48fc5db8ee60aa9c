"""A config whose model holds another one, and a task that takes several kinds."""

import pytest
from test_schema import TABLES, changed, resolved

import tasks
from errors import ConfigError
from training import schema
from training.config_files import load_config


def test_the_model_in_a_classifier_is_checked_and_completed():
    good = schema.validate(load_config("configs/classification.py:smoke"), **TABLES)
    assert good["model"]["inner"]["layer_norm"] == "pre"
    assert "vocab_size" not in good["model"]["inner"]
    assert schema.validate(schema.to_json(good), **TABLES) == good
    cases = [
        ("model.inner.num_layer", 2, "config.model.inner: .*Did you mean 'num_layers'"),
        ("model.inner.d_model", "x", "config.model.inner.d_model must be a whole number"),
        ("model.inner", None, "config.model.inner must be a block with a name"),
        ("model.outer", 2, "config.model: Unknown option of model 'classifier': 'outer'"),
    ]
    for path, value, pattern in cases:
        with pytest.raises(ConfigError, match=pattern):
            schema.validate(changed(good, path, value), **TABLES)


def test_a_task_may_take_models_of_several_kinds(monkeypatch):
    good = resolved()
    monkeypatch.setattr(tasks.TASKS["translation"], "model_kind", ("encoder", "language_model"))
    assert schema.validate(changed(good, "model", {"name": "recurrent_lm"}), **TABLES)
    with pytest.raises(ConfigError, match="needs a encoder or a language_model, but model trans"):
        schema.validate(good, **TABLES)
