"""Training begins with a folder of published weights, and goes on with no other one."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pretrained_cases import completed
from published_folders import make_folder
from safetensors.numpy import load_file, save_file

import published
import tasks
import train
import trained
from configs import base
from experiments import export_weights, import_weights
from models import pretrained
from trained import load_run
from training import config_files, distributed
from training.checkpoint_reader import load
from training.files import write_atomic
from training.run_directory import RunDirectory
from trees import named_leaves

REPO = Path(__file__).resolve().parent.parent
CLASSIFY = "configs/classification.py:data=entailment,smoke,init_from="
SOURCE = {"name": "entailment", "num_train": 32, "num_validation": 4, "num_test": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Folders "bert", "gpt2" and "t5", runs of the first two in "runs", data in "data"."""
    root = tmp_path_factory.mktemp("published")
    for name in ("bert", "gpt2", "t5"):
        make_folder(root / name, name)
    for name in ("bert", "gpt2"):
        arguments = ["--source", str(root / name), "--output", str(root / "runs" / name)]
        assert import_weights.main([*arguments, "--max_length", "16"]) == 0
    return root


def command(folders: Path, config: str, workdir: Path, *overrides: str) -> list[str]:
    fields = [f"data_dir={folders / 'data'}", "parallel.num_devices=1", f"task.source={SOURCE}"]
    arguments = [f"--config={config}", f"--workdir={workdir}"]
    return arguments + [f"--config.{field}" for field in (*fields, *overrides)]


def language_model(folders: Path, folder: Path, workdir: Path, *overrides: str) -> list[str]:
    """Goes on with what published weights have learned, on other texts."""
    cutter = {"name": "saved", "path": str(folder)}
    fields = [f"init_from.model={folder}", f"task.tokenizer={cutter}", "num_steps=2"]
    fields.append("optimizer.schedule={'name': 'constant'}")
    config = str(folders / "runs" / "gpt2" / "config.json")
    return command(folders, config, workdir, *fields, "task.side=source", *overrides)


def params_of(workdir: Path) -> dict[str, np.ndarray]:
    return named_leaves(load(workdir / "checkpoints", None, "params")[1])


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, lines
    return lines[-1]


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_folder_tunes_as_the_run_that_is_made_of_it(folders, tmp_path, name, capsys):
    """Bit for bit: the model, its parameters, the tokenizer and the batches are the same."""
    for kind, source in (("folder", folders / name), ("run", folders / "runs" / name)):
        assert train.main(command(folders, f"{CLASSIFY}{source}", tmp_path / kind)) == 0
    assert "parameters filled from trained models: inner/" in capsys.readouterr().err
    found, expected = params_of(tmp_path / "folder"), params_of(tmp_path / "run")
    assert found.keys() == expected.keys()
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    blocks = [json.loads((tmp_path / k / "config.json").read_text()) for k in ("folder", "run")]
    assert blocks[0]["model"] == blocks[1]["model"]


def test_what_is_frozen_is_what_was_published_and_is_exported_again(folders, tmp_path):
    folder, weights = folders / "gpt2", published.read_folder(folders / "gpt2").weights.params
    run = tmp_path / "run"
    frozen = command(folders, f"{CLASSIFY}{folder}", run, "freeze=('inner/*',)")
    assert train.main(frozen) == 0
    found = params_of(run)
    for path, array in weights.items():
        kept = found[f"inner/{path}"][tuple(slice(0, size) for size in array.shape)]
        np.testing.assert_array_equal(kept, array, err_msg=path)
    assert load_run(run, "classifier").tokenizer.source.model_type == "gpt2"
    # A folder that we wrote ourselves is as good as theirs.
    ours = tmp_path / "ours"
    written = ["--workdir", str(folders / "runs" / "gpt2"), "--output", str(ours)]
    assert export_weights.main(written) == 0
    again = command(folders, f"{CLASSIFY}{ours}", tmp_path / "again", "freeze=('inner/*',)")
    assert train.main(again) == 0
    same = params_of(tmp_path / "again")
    assert all(np.array_equal(array, same[path]) for path, array in found.items())


def test_a_language_model_goes_on_and_resumes_with_the_same_folder_only(folders, tmp_path, capsys):
    folder = shutil.copytree(folders / "gpt2", tmp_path / "gpt2")
    workdir, kept = tmp_path / "run", ["save_every=1"]
    assert train.main(language_model(folders, folder, workdir, *kept)) == 0
    whole = tmp_path / "whole"
    assert train.main(language_model(folders, folders / "gpt2", whole, "num_steps=3")) == 0
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "transformer.ln_f.weight"
    save_file({**tensors, name: tensors[name] + 1}, path)
    longer = language_model(folders, folder, workdir, *kept, "num_steps=3")
    before = (workdir / "journal.jsonl").read_bytes()
    capsys.readouterr()
    assert train.main(longer) == 64
    line = one_line(capsys)
    assert f"config.init_from.model: the weights in {folder} are others" in line
    assert (workdir / "journal.jsonl").read_bytes() == before
    shutil.copy(folders / "gpt2" / "model.safetensors", path)
    assert train.main(longer) == 0
    found, expected = params_of(workdir), params_of(whole)
    assert all(np.array_equal(found[path], expected[path]) for path in expected)


def test_a_run_that_has_begun_needs_its_weights_no_more(folders, tmp_path):
    """But keeps in mind which they were."""
    workdir, folder = tmp_path / "run", shutil.copytree(folders / "gpt2", tmp_path / "gpt2")
    cutter = {"name": "saved", "path": str(folders / "gpt2")}
    fields = [f"task.tokenizer={cutter}", "save_every=1"]
    assert train.main(language_model(folders, folder, workdir, *fields)) == 0
    folder.rename(tmp_path / "elsewhere")
    longer = language_model(folders, folder, workdir, *fields, "num_steps=3")
    assert train.main(longer) == 0
    (tmp_path / "elsewhere").rename(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert train.main([*longer[:-1], "--config.num_steps=4"]) == 64


def test_processes_that_see_other_weights_are_told(folders, tmp_path, capsys, monkeypatch):
    def agreed(name, value):
        return dict.fromkeys(value(), "of another") if "init_from.model" in value() else {}

    monkeypatch.setattr(distributed, "agreed", agreed)
    monkeypatch.setattr(train, "check_same", lambda settings: None)
    assert train.main(language_model(folders, folders / "gpt2", tmp_path / "run")) == 64
    assert "config.init_from.model is" in one_line(capsys)


def test_a_config_with_published_weights_asks_for_no_device(folders):
    """Or processes could no longer be connected, nor cores become devices."""
    program = (
        "import sys; from training.config_files import load_config; "
        "config = load_config(sys.argv[1]); from jax._src import xla_bridge; "
        "print(config.model.inner.name, xla_bridge.backends_are_initialized())"
    )
    words = [sys.executable, "-c", program, f"{CLASSIFY}{folders / 'bert'}"]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["transformer_encoder", "False"]


# What the files of the smallest published models say, and the preset.
PUBLISHED = {
    "gpt2-small": {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
    "bert-base": {
        "model_type": "bert",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
    },
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_is_the_published_model_but_for_ids(preset):
    """So config.init_from.model takes it where the README says so."""
    config = PUBLISHED[preset]
    found = completed(pretrained.family_of(config).block(config, {}))
    mine = completed((base.GPT | base.BERT)[preset])
    assert not pretrained.difference(found, mine)
    assert pretrained.difference(found | {"unwritten": [0, 1, 2]}, mine) == "unwritten"


# ------------------------------------------------------------------- refusals


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def short(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors = {k: v for k, v in tensors.items() if not k.endswith("attn.c_proj.weight")}
    save_file(tensors, folder / "model.safetensors")


def without(*names: str):
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def rewrite(**fields):
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        write_atomic(path, json.dumps(json.loads(path.read_text()) | fields))

    return damage


def same(folder: Path) -> None:
    """Nothing is wrong with the folder."""


# Name, damage, exit code, sentence.
DAMAGES = [
    ("gpt2", pickled, 65, "files of this kind can run programs"),
    ("gpt2", short, 65, "missing: transformer.h.0.attn.c_proj.weight"),
    ("gpt2", without("config.json"), 65, "config.json: cannot be read"),
    ("gpt2", without("model.safetensors"), 65, "neither model.safetensors nor"),
    ("gpt2", without("vocab.json", "merges.txt"), 65, "there is no tokenizer"),
    ("gpt2", rewrite(model_type="gpt3"), 65, "Did you mean 'gpt2'"),
    ("gpt2", rewrite(n_head=3), 65, "d_model must be an even multiple of num_heads"),
    ("gpt2", lambda f: (f / "config.json").write_text("{"), 65, "config.json: damaged"),
    ("gpt2", shutil.rmtree, 64, "neither a run directory nor a folder of published weights"),
    ("t5", same, 64, "holds a transformer_seq2seq, and a classifier needs one of elmo"),
]


@pytest.mark.parametrize(("name", "damage", "code", "sentence"), DAMAGES)
def test_a_folder_that_is_wrong_is_one_line_and_nothing_is_written(
    folders, tmp_path, capsys, monkeypatch, name, damage, code, sentence
):
    folder = shutil.copytree(folders / name, tmp_path / "copy")
    damage(folder)
    monkeypatch.setattr(tasks, "build", None)  # nothing is read of the data, either
    assert train.main(command(folders, f"{CLASSIFY}{folder}", tmp_path / "run")) == code
    line = one_line(capsys)
    assert re.search(sentence, line)
    assert str(folder) in line
    assert not (tmp_path / "run").exists()


# Overrides and the sentence.
MISFITS = {
    "kind": (
        ["init_from.model=", "init_from.decoder={root}/bert"],
        "this needs kind language_model",
    ),
    "model": (["init_from.model={root}/bert"], "config.model.name is 'transformer_lm', but"),
    "options": (["model.activation=relu"], "activation is 'relu', .*published with 'gelu_tanh'"),
    "copies": (["model.unwritten=()"], r"config.model.unwritten is \(\), .*published with \["),
    "pickle": (["init_from.model={root}/model.bin"], "files of this kind can run programs"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_folder_that_does_not_fit_is_one_line(folders, tmp_path, capsys, monkeypatch, name):
    overrides, sentence = MISFITS[name]
    overrides = [override.format(root=folders) for override in overrides]
    monkeypatch.setattr(tasks, "build", None)
    line = language_model(folders, folders / "gpt2", tmp_path / "run", *overrides)
    assert train.main(line) == (65 if name == "pickle" else 64)
    assert re.search(sentence, one_line(capsys))
    assert not (tmp_path / "run").exists()


def test_what_may_differ_from_the_published_model_may(folders, tmp_path):
    fields = ["model.dropout_rate=0.3", "model.remat=dots", "model.dtype=bfloat16"]
    fields += ["model.attention=blockwise", "model.attention_block=16"]
    line = language_model(folders, folders / "gpt2", tmp_path / "run", *fields)
    settings = train.check(config_files.load_config(line[0].partition("=")[2], line[2:]))
    parts, digests = trained.load_parts(settings, RunDirectory(tmp_path / "run"), [])
    assert list(parts) == ["model"]
    assert digests == {"init_from.model": published.digest(folders / "gpt2")}
