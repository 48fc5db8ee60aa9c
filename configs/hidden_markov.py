"""Predicting a language whose entropy is known, so that a loss can be compared with the least.

  python train.py --config=configs/hidden_markov.py --workdir=runs/hidden
  python train.py --config=configs/hidden_markov.py:model=lm-lstm-tiny --workdir=runs/hidden-lstm

Arguments: model (a preset of configs/base.py), states and symbols (of the hidden Markov model),
length (symbols of a sentence), language (another number, another language), seed, and smoke (a
whole run in seconds).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.parse(
        arg,
        model="lm-transformer-tiny",
        states=12,
        symbols=24,
        length=48,
        language=0,
        seed=0,
        smoke=False,
    )
    config = base.config()
    config.seed = given.seed
    source = {
        "name": "hidden_markov",
        "num_states": given.states,
        "num_symbols": given.symbols,
        "length": given.length,
        "seed": given.language,
        "num_train": 20_000,
        "num_validation": 500,
        "num_test": 500,
    }
    config.task = base.language_task(
        source,
        tokenizer={"name": "words"},  # a token a symbol: only then is the entropy a floor
        sequence_length=given.length + 1,
        sequences_per_batch=32,
    )
    config.model = base.choose_model(given.model, base.LANGUAGE_MODELS, given.smoke)
    config.model.dropout_rate = 0.0  # a run reads each sentence but once or twice
    config.num_steps = 800
    config.eval_every = config.save_every = 100
    config.optimizer.learning_rate = 3e-3
    if given.smoke:
        base.smoke(config)
        config.task.sequences_per_batch = 8
    return config


def sweep() -> list[str]:
    """One argument string for each run: every architecture, three seeds."""
    return base.sweep(base.LANGUAGE_MODELS, "tiny")
