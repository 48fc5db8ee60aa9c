"""Bidirectional pretraining: hidden words and pairs of texts with BERT (Devlin et al. 2019).

  python train.py --config=configs/bert.py --workdir=runs/bert
  python train.py --config=configs/bert.py:nsp=false --workdir=runs/bert-without-pairs
  python train.py --config=configs/bert.py:whole_words --workdir=runs/bert-whole-words
  python train.py --config=configs/bert.py:data=my/folder --workdir=runs/mine

Arguments: model (a preset of bert or roberta of configs/base_families.py; the latter knows no
pairs and needs nsp=false), nsp (whether the second of two texts follows the first is learned
too), whole_words (hidden whole or not at all), data (a folder as for configs/translation.py, in
which neighbouring lines are neighbouring texts; or "tweets", which have none), source_language
and target_language (text of the target language is learned), seed, and smoke (a whole run on a
toy language in seconds).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.text_arguments(arg, model="bert-mini", nsp=True, whole_words=False)
    config = base.config()
    config.seed = given.seed
    config.task = {
        "name": "masked_language_modelling",
        **base.text_options(given),
        "nsp": given.nsp,
        "mask_rate": 0.15,
        "whole_words": given.whole_words,
    }
    config.model = base.choose_model(given.model, base.BERT, given.smoke)
    config.num_steps = 2000
    config.optimizer.learning_rate = 5e-4
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: with pairs and without, three seeds."""
    runs = base.sweep(["bert-mini"], "mini")
    return [f"nsp={nsp},{run}" for nsp in ("true", "false") for run in runs]
