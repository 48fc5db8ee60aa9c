"""Predicting each token from both sides: the language model under ELMo's features.

  python train.py --config=configs/elmo.py --workdir=runs/elmo
  python train.py --config=configs/elmo.py:characters=24 --workdir=runs/elmo-characters
  python train.py --config=configs/elmo.py:data=my/folder --workdir=runs/mine

Arguments: model (a preset of configs/base.py), data (a folder as for configs/translation.py, or
"tweets"), source_language and target_language (text of the target language is learned),
characters (0: ids of subwords; else words are read letter by letter, so many of each), seed, and
smoke (a whole run on a toy language in seconds). What it learned goes into a classifier by
configs/classification.py:init_from=runs/elmo.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.text_arguments(arg, model="elmo-small", characters=0)
    config = base.config()
    config.seed = given.seed
    config.task = {
        "name": "bidirectional_language_modelling",
        **base.text_options(given),
        "packed": True,
        "max_characters": given.characters,
    }
    config.model = base.choose_model(given.model, base.BIDIRECTIONAL, given.smoke)
    if given.characters:
        config.task.tokenizer.name = "words"
        config.model.update(embedding="characters", tie_embeddings=False)
    config.num_steps = 600
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: subwords and characters, three seeds."""
    return [f"characters={c},seed={seed}" for c in (0, 24) for seed in range(3)]
