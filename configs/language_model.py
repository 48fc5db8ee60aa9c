"""Predicting the next token: English verses of the Bible, or a text of your own.

  python train.py --config=configs/language_model.py --workdir=runs/lm
  python train.py --config=configs/language_model.py:model=lm-lstm-small --workdir=runs/lm-lstm
  python train.py --config=configs/language_model.py:data=my/folder --workdir=runs/mine

Arguments: model (a preset of configs/base.py), data (a folder as for configs/translation.py, or
"tweets"), source_language and target_language (text of the target language is learned), seed, and
smoke (a whole run on a toy language in seconds). A recurrent model carries its state from batch
to batch with --config.task.truncate=128 (k2; k1 is task.sequence_length).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.text_arguments(arg, model="lm-transformer-small")
    config = base.config()
    config.seed = given.seed
    config.task = base.language_task(**base.text_options(given), num_samples=5)
    config.model = base.choose_model(given.model, base.LANGUAGE_MODELS, given.smoke)
    config.num_steps = 600
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: every architecture, three seeds."""
    return base.sweep(base.LANGUAGE_MODELS)
