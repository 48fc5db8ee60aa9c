"""Writes the model of a run as Hugging Face's from_pretrained() reads it.

  python experiments/export_weights.py --workdir=RUN --output FOLDER

FOLDER gets config.json, model.safetensors and, where the run's tokenizer came from such a folder
or is SentencePiece's, its files. What import_weights.py has read comes out bit for bit. A model
that no family of models/pretrained holds is refused, with the option that it cannot say.
Exit codes: 0 done, 64 wrong arguments, 65 bad data, 74 disk.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import data
import models
from data.files import new_folder
from data.hugging_face import HuggingFace
from data.subwords import Subwords
from data.tensor_files import FILE, write_file
from errors import ConfigError, Parser
from experiments.import_weights import RECORD
from models import pretrained
from trained import TrainedRun, load_run
from training.files import storage_errors
from trees import named_leaves


def record_of(workdir: Path) -> dict[str, Any]:
    """What import_weights.py noted of the folder; of other runs nothing."""
    path = workdir / RECORD
    if not path.exists():
        return {"config": {}, "names": {}, "lacking": []}
    with storage_errors("read", path):
        return json.loads(path.read_bytes())


def ids_of(tokenizer: data.Tokenizer) -> pretrained.Ids:
    """How the ids of a run stand to theirs."""
    if isinstance(tokenizer, HuggingFace):
        return pretrained.Ids(tokenizer.theirs, tokenizer.copies)
    return pretrained.Ids.same(tokenizer.vocab_size)


def special_ids(ids: pretrained.Ids, is_pair: bool) -> dict[str, int]:
    """The fields of config.json about ids; no padding where they have none of their own."""
    places = {
        "pad": data.PAD,
        "decoder_start" if is_pair else "bos": data.BOS,
        "eos": data.EOS,
    }
    return {
        f"{name}_token_id": int(ids.theirs[i])
        for name, i in places.items()
        if i != data.PAD or i not in ids.copies
    }


def tokenizer_files(tokenizer: data.Tokenizer) -> Mapping[str, bytes]:
    """The files of a tokenizer that others can read."""
    if isinstance(tokenizer, HuggingFace):
        return tokenizer.files
    return {"spiece.model": tokenizer.model} if isinstance(tokenizer, Subwords) else {}


def exported(run: TrainedRun, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and the tensors of a run.

    Raises:
        ConfigError: no family holds its model.
    """
    block, params = run.settings["model"], run.variables["params"]
    if block.get("inner"):  # of a classifier the model that reads
        block, params = block["inner"], params["inner"]
    if block.get("scan_layers"):
        raise ConfigError("--workdir: config.model.scan_layers lays layers out as no other does.")
    target, ids, tokenizer = models.MODELS[block["name"]], ids_of(run.tokenizer), run.tokenizer
    if isinstance(tokenizer, HuggingFace):
        name = tokenizer.source.model_type
    else:
        name = pretrained.fitting(block, target)
    family = pretrained.FAMILIES[name]
    tensors = family.write(named_leaves(params), block, ids)
    kept = record["names"]
    if kept:
        tensors = {kept[name]: array for name, array in tensors.items() if name in kept}
    config = {
        "model_type": name,
        "architectures": [family.architecture],
        **special_ids(ids, target.kind == "seq2seq"),
        "vocab_size": int(max(ids.theirs)) + 1,
        **family.config(block, target),
        **record["config"],
        "dtype": "float32",
    }
    return config, tensors


def export(options: argparse.Namespace) -> str:
    """Writes the folder; returns what to say of it."""
    output = Path(options.output).expanduser().absolute()
    if output.exists():
        raise ConfigError(f"--output {output} exists. Choose another folder.")
    run = load_run(options.workdir, None)
    config, tensors = exported(run, record_of(Path(options.workdir)))
    files = tokenizer_files(run.tokenizer)
    with new_folder(output) as folder:
        write_file(folder / FILE, tensors)
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for name, content in files.items():
            (folder / name).write_bytes(content)
    number = sum(array.size for array in tensors.values())
    text = f"{output}: {config['architectures'][0]} with {number:,} parameters."
    if files:
        return text
    return f"{text}\nThe tokenizer ({run.tokenizer.name}) has no file that others read."


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, metavar="RUN", help="run directory")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to make")
    return parser.run(lambda options: print(export(options)), argv)


if __name__ == "__main__":
    sys.exit(main())
