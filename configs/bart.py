"""Denoising: a text from what is left of it, with BART (Lewis et al. 2020).

  python train.py --config=configs/bart.py --workdir=runs/bart
  python train.py --config=configs/bart.py:permute=false --workdir=runs/bart-in-order
  python train.py --config=configs/bart.py:data=my/folder --workdir=runs/mine

30 % of the tokens are hidden, in spans of Poisson lengths behind one [MASK] each, and the
verses (or lines) of a text come in another order.

Arguments: model (a preset of bart of configs/base_families.py), permute (whether the order of
sentences is changed), data (a folder as for configs/translation.py, or "tweets"), source_language
and target_language (text of the target language is learned), seed, and smoke (a whole run on a
toy language in seconds).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.text_arguments(arg, model="bart-mini", permute=True)
    config = base.config()
    config.seed = given.seed
    config.task = {
        "name": "denoising",
        **base.text_options(given),
        "objective": "text_infilling",
        "packed": True,
        "noise_rate": 0.3,
        "mean_span": 3.0,
        "permute": given.permute,
    }
    config.model = base.choose_model(given.model, base.BART, given.smoke)
    config.num_steps = 2000
    config.optimizer.learning_rate = 5e-4
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: sentences in and out of order, three seeds."""
    runs = base.sweep(["bart-mini"], "mini")
    return [f"permute={permute},{run}" for permute in ("true", "false") for run in runs]
