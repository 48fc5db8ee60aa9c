"""Text to text: spans behind sentinels with T5 (Raffel et al. 2020).

  python train.py --config=configs/t5.py --workdir=runs/t5
  python train.py --config=configs/t5.py:model=t5-mini --workdir=runs/t5-1.0
  python train.py --config=configs/t5.py:objective=prefix --workdir=runs/t5-prefix
  python train.py --config=configs/t5.py:data=my/folder --workdir=runs/mine

Arguments: model (a preset of t5 or t5v1.1 of configs/base_families.py), objective
(span_corruption; or prefix: the rest of a text from its beginning), data (a folder as for
configs/translation.py, or "tweets"), source_language and target_language (text of the target
language is learned), seed, and smoke (a whole run on a toy language in seconds).
"""

from ml_collections import ConfigDict

from configs import base

OBJECTIVES = ("span_corruption", "prefix")


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.text_arguments(arg, model="t5v1.1-mini", objective="span_corruption")
    config = base.config()
    config.seed = given.seed
    known = {name: {"objective": name} for name in OBJECTIVES}
    config.task = {
        "name": "denoising",
        **base.text_options(given),
        **base.choose("objective", given.objective, known),
        "packed": True,
        "noise_rate": 0.15,
        "mean_span": 3.0,
    }
    config.model = base.choose_model(given.model, base.T5, given.smoke)
    config.num_steps = 2000
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: both objectives and both versions, three seeds."""
    runs = base.sweep(base.T5, "mini")
    return [f"objective={objective},{run}" for objective in OBJECTIVES for run in runs]
