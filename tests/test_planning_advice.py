"""What a plan advises when a step does not fit."""

from types import SimpleNamespace

import train
from experiments.planning import advice
from training.config_files import load_config


def settings_of(config, *overrides):
    return train.check(load_config(config, overrides))


def test_a_classifier_is_advised_of_options_that_it_has():
    settings = settings_of("configs/classification.py:smoke")
    found = list(advice.variants(settings, 1))
    words = found[-1][0].split()
    assert any(word.startswith("--config.model.inner.") for word in words)
    changed = settings_of("configs/classification.py:smoke", *words)
    assert changed["model"] == found[-1][1]["model"]


def test_nothing_is_advised_that_a_run_refuses():
    """A mesh makes gradients of remat_chunk wrong, and canonical shards need pmap."""
    fields = ["--config.model.remat_chunk=2"]
    settings = settings_of("configs/language_model.py:smoke,model=lm-lstm-tiny", *fields)
    found = SimpleNamespace(
        formula=SimpleNamespace(memory=2.0), target=SimpleNamespace(num_chips=2)
    )
    plan, lines, asked = SimpleNamespace(memory=2.0, limit=1.0, **vars(found)), [], []

    def planner(changed, compiling=True):
        asked.append(changed["parallel"]["strategy"])
        return plan

    advice.what_to_change(settings, plan, planner, lines.append)
    assert len(asked) > 2
    assert set(asked) == {"pmap"}
    assert not any("mesh" in line for line in lines[:-1])
