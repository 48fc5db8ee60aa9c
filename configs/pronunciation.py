"""Letters to phonemes: English words of the CMU dictionary, by any encoder-decoder.

  python train.py --config=configs/pronunciation.py --workdir=runs/pronunciation
  python train.py --config=configs/pronunciation.py:model=lstm-attention-small --workdir=runs/g2p

Arguments: model (a preset of configs/base.py), stress (keep the stress of vowels), seed, and
smoke (a whole run on a toy language in seconds).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.parse(arg, model="transformer-small", stress=False, seed=0, smoke=False)
    config = base.config()
    config.seed = given.seed
    source = {"name": "pronunciations", "stress": given.stress}
    config.task = base.pairs_task(
        "pronunciation", source, max_length=40, num_buckets=3, label_smoothing=0.1
    )
    config.model = base.choose_model(given.model, base.SEQ2SEQ, given.smoke)
    config.model.dropout_rate = 0.1
    config.num_steps = 2500
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup_steps = 200
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: every small architecture, three seeds."""
    return base.sweep(base.SEQ2SEQ)
