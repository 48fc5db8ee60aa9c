"""Translating text: the Bible from Italian into English, or sentence pairs of your own.

  python train.py --config=configs/translation.py --workdir=runs/translation
  python train.py --config=configs/translation.py:model=lstm-attention-small --workdir=runs/lstm
  python train.py --config=configs/translation.py:data=my/folder --workdir=runs/mine

The first command: 3.9 M parameters, 1,000 steps (1.3 M target subwords) in 300 s on two Xeon cores
(jax 0.10.2), 426 s with compilation and scoring; validation perplexity 17.6, BLEU 5.9, chrF 20.2.

Arguments: model (a preset of configs/base.py), data (a folder with train.tsv, validation.tsv
and test.tsv, or train.it and train.en and so on), source_language and target_language (codes
of the Bible, or endings of your files; TSV files need none), seed, and smoke (a whole run on
a toy language in seconds).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.parse(
        arg,
        model="transformer-small",
        data="bible",
        source_language="it",
        target_language="en",
        seed=0,
        smoke=False,
    )
    config = base.config()
    config.seed = given.seed
    config.task = base.pairs_task(
        "translation",
        base.text_pairs(given.data, given.source_language, given.target_language),
        tokenizer={"name": "bpe", "vocab_size": 1000},
    )
    config.model = base.choose_model(given.model, base.SEQ2SEQ, given.smoke)
    # One pass over the text in five minutes: neither noise nor smoothing is needed, and a
    # small vocabulary is seen more often (Ding et al. 2019 on little data). For longer runs
    # set model.dropout_rate and task.label_smoothing to 0.1.
    config.model.dropout_rate = 0.0
    config.num_steps = 1000
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule.warmup_steps = 150
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: every architecture, three seeds."""
    return base.sweep(base.SEQ2SEQ)


def search_space() -> dict[str, dict]:
    """What experiments/search.py tries."""
    return {
        "optimizer.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "optimizer.schedule.warmup_steps": {"low": 50, "high": 400},
        "model.dropout_rate": {"low": 0.0, "high": 0.3},
        "task.label_smoothing": {"choices": [0.0, 0.1]},
    }
