"""Generative pretraining: predicting the next token with GPT (Radford et al. 2018, 2019).

  python train.py --config=configs/gpt.py --workdir=runs/gpt
  python train.py --config=configs/gpt.py:model=gpt1-mini --workdir=runs/gpt1
  python train.py --config=configs/gpt.py:objective=prefix --workdir=runs/gpt-prefix
  python train.py --config=configs/gpt.py:objective=bidirectional_prefix --workdir=runs/prefix-lm
  python train.py --config=configs/gpt.py:data=my/folder --workdir=runs/mine

Arguments: model (a preset of gpt1 or gpt2 of configs/base_families.py, or any other language
model, such as lm-lstm-small), objective (causal; prefix: the beginning of each text is given and
only the rest is predicted; bidirectional_prefix: the same, and a Transformer's places of the given
part see each other both ways, as those of a prompt then do in experiments/generate.py: Liu et al.
2018; Raffel et al. 2020, 3.2.1), data (a folder as for configs/translation.py, or "tweets"),
source_language and target_language (text of the target language is learned), seed, and smoke (a
whole run on a toy language in seconds).
"""

from ml_collections import ConfigDict

from configs import base
from errors import ConfigError

OBJECTIVES = {
    "causal": {"name": "language_modelling", "packed": True},
    "prefix": {"name": "prefix_language_modelling", "packed": False},
    "bidirectional_prefix": {
        "name": "prefix_language_modelling",
        "packed": False,
        "bidirectional": True,
    },
}
MODELS = base.GPT | base.LANGUAGE_MODELS
READERS = [name for name, block in MODELS.items() if block["name"] == "transformer_lm"]


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.text_arguments(arg, model="gpt2-mini", objective="causal")
    config = base.config()
    config.seed = given.seed
    objective = base.choose("objective", given.objective, OBJECTIVES)
    config.task = {**objective, **base.text_options(given), "num_samples": 5}
    config.model = base.choose_model(given.model, MODELS, given.smoke)
    if given.objective == "bidirectional_prefix":
        if config.model.name != "transformer_lm":
            raise ConfigError(
                "Config argument objective=bidirectional_prefix needs a model that can read both "
                f"ways, and model={given.model} is a {config.model.name}; choose one of "
                f"{', '.join(sorted(READERS))}, or objective=prefix."
            )
        config.model.bidirectional_prefix = True
    config.num_steps = 2000
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: both objectives and both families, three seeds."""
    runs = base.sweep(base.GPT, "mini")
    return [f"objective={objective},{run}" for objective in OBJECTIVES for run in runs]
