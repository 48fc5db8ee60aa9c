"""Makes a run directory of published weights, which every other command accepts.

  python experiments/import_weights.py --source FOLDER --output RUN

FOLDER is as Hugging Face's save_pretrained() writes it: config.json, model.safetensors (or several
with an index), and tokenizer.json or vocabulary files. GPT-1, GPT-2, BERT, RoBERTa, T5, BART and
Marian are known (models/pretrained). PyTorch is not needed, and no pickle is opened. Tensors that
are missing or unknown are listed; an option that our models do not have is refused by name.

RUN trains on --data when it is continued, and is scored on it: "bible" or a folder of texts (see
README). Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import models
import tasks
from configs import base
from errors import ConfigError, Parser
from experiments.translate import whole_number
from published import Published, read_folder
from training import schema
from training.checkpoints import Checkpointer
from training.files import storage_errors, write_atomic
from training.run_directory import RunDirectory
from trees import named_leaves

RECORD = "published.json"


def task_block(kind: str, config: Mapping[str, Any], length: int, options: Any) -> dict[str, Any]:
    """What a run with a model of that kind is trained on."""
    source = base.text_pairs(options.data, options.source_language, options.target_language)
    saved = {"name": "saved", "path": str(Path(options.output).absolute() / "tokenizer")}
    if kind == "seq2seq":
        return base.pairs_task("translation", source, tokenizer=saved, max_length=length)
    block = {"source": source, "tokenizer": saved, "side": "target", "sequence_length": length}
    if kind == "language_model":
        return {"name": "language_modelling", **block}
    nsp = config["model_type"] == "bert"
    return {"name": "masked_language_modelling", **block, "nsp": nsp}


def whole(found: Published) -> Any:
    """All parameters of a model as a tree; those of heads that the folder lacks are fresh."""
    params = found.weights.params
    fresh = jax.eval_shape(lambda: models.init(found.model, jax.random.key(0)))["params"]
    if params.keys() != named_leaves(fresh).keys():
        params = named_leaves(models.init(found.model, jax.random.key(0))["params"]) | params
    leaves = [np.asarray(params[path]) for path in named_leaves(fresh)]
    return jax.tree.unflatten(jax.tree.structure(fresh), leaves)


def import_folder(options: argparse.Namespace) -> str:
    """Reads a folder and writes a run; returns what to say of it."""
    run = RunDirectory(options.output)
    run.check()
    if run.exists:
        raise ConfigError(f"--output {run.path} is a run already. Choose another folder.")
    found = read_folder(Path(options.source))
    block, weights, params = found.block, found.weights, whole(found)
    settings = base.config()
    length = block["max_positions"] if block["positions"] == "learned" else options.max_length
    task = task_block(found.model.kind, found.config, min(length, options.max_length), options)
    settings.update(task=task, model=block, data_dir=options.data_dir)
    checked = schema.validate(settings, models=models.MODELS, tasks=tasks.TASKS)
    record = {"config": found.config, "names": weights.names, "lacking": weights.lacking}
    with run.lock():
        run.journal("start", argv=sys.argv)
        run.write_config(schema.to_json(checked))
        run.write_environment()
        found.tokenizer.save(run / "tokenizer")
        with storage_errors("write", run / RECORD):
            write_atomic(run / RECORD, json.dumps(record, indent=1) + "\n")
        fingerprint = {"tokenizer": found.tokenizer.fingerprint()}
        with Checkpointer(run.checkpoints, 2, fingerprint, run.journal) as saver:
            saver.save(0, {"params": params}, {"best": {"step": 0}})
        run.journal("import", source=str(Path(options.source).absolute()), lacking=weights.lacking)
    number = models.num_parameters(params)
    lines = [f"{run.path}: {found.model.kind}, {number:,} parameters."]
    if weights.lacking:
        lines.append(f"Not in the folder, and fresh: {', '.join(weights.lacking)}.")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--source", required=True, metavar="FOLDER", help="config.json, weights, tokenizer")
    add("--output", required=True, metavar="RUN", help="run directory to make")
    add("--data", default="bible", help="texts of the run: bible (default), or a folder")
    add("--source_language", default="it", help="of pairs (default it)")
    add("--target_language", default="en", help="of pairs, and of one text (default en)")
    add(
        "--max_length",
        type=whole_number(2),
        default=128,
        help="tokens of a row in training (default 128)",
    )
    add("--data_dir", default="", help="prepared data; default: .cache in this repository")
    return parser.run(lambda options: print(import_folder(options)), argv)


if __name__ == "__main__":
    sys.exit(main())
