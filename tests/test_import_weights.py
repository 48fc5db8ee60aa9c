"""Published folders to run directories and back, and what is refused on the way."""

import json
import re
import shutil
import struct

import jax
import numpy as np
import pytest
from published_folders import NAMES, make_folder
from safetensors.numpy import load_file, save_file

from data.tensor_files import read_tensors
from experiments import export_weights, import_weights, translate
from published import model_block, read_folder
from trained import load_run
from training.checkpoint_reader import good_steps
from trees import named_leaves

ROUND_TRIPS = ("gpt2", "bert", "bart", "t5", "marian")  # the others have the same transforms


def run_import(folder, output, *more) -> int:
    return import_weights.main(["--source", str(folder), "--output", str(output), *more])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{name: folder} as published."""
    root = tmp_path_factory.mktemp("folders")
    return {name: make_folder(root / name, name) for name in NAMES}


@pytest.fixture(scope="module")
def imported(folders, tmp_path_factory):
    """{name: run directory} of some folders."""
    root = tmp_path_factory.mktemp("imported")
    for name in ROUND_TRIPS:
        assert run_import(folders[name], root / name, "--max_length", "16") == 0
    return {name: root / name for name in ROUND_TRIPS}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_run_is_made_and_comes_out_bit_for_bit(folders, imported, name, tmp_path, capsys):
    run = load_run(imported[name], None)
    assert good_steps(imported[name] / "checkpoints") == [0]
    assert run.model.vocab_size == run.tokenizer.vocab_size
    assert "dropout_rate" in run.settings["model"]
    arguments = ["--workdir", str(imported[name]), "--output", str(tmp_path / "out")]
    assert export_weights.main(arguments) == 0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors"} < files
    original, back = (load_file(f / "model.safetensors") for f in (folders[name], tmp_path / "out"))
    assert original.keys() == back.keys()
    assert all(original[key].tobytes() == back[key].tobytes() for key in original)
    before, after = (
        json.loads((f / "config.json").read_text()) for f in (folders[name], tmp_path / "out")
    )
    assert after.items() >= before.items()
    assert export_weights.main(arguments) == 64
    assert "exists" in capsys.readouterr().err
    if name != "gpt2":
        return
    assert run_import(tmp_path / "out", tmp_path / "again", "--max_length", "16") == 0
    again = load_run(tmp_path / "again", None)
    for first, second in zip(*map(jax.tree.leaves, (run.variables, again.variables)), strict=True):
        assert np.array_equal(first, second)


def test_imported_models_translate(imported, tmp_path, capfdbinary):
    (tmp_path / "in.txt").write_text("the cat sat on the mat\nthe cat\n")
    for name in ("bart", "marian"):
        arguments = [f"--workdir={imported[name]}", f"--input={tmp_path / 'in.txt'}"]
        assert translate.main([*arguments, "--num_beams=1"]) == 0, capfdbinary.readouterr().err
        assert capfdbinary.readouterr().out.count(b"\n") == 2


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def renamed(folder, names, more):
    """The same tensors under other names, and more of them."""
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {names(k): v for k, v in tensors.items()} | more(tensors), folder / "model.safetensors"
    )


def test_bare_and_older_files_are_read(folders, tmp_path):
    """Of models without heads, with buffers, repeated matrices, and the names of old."""
    gpt2, bert = (shutil.copytree(folders[name], tmp_path / name) for name in ("gpt2", "bert"))
    weights, heads = (read_folder(folder).weights for folder in (gpt2, bert))
    renamed(
        gpt2,
        lambda name: name.removeprefix("transformer."),
        lambda t: {"h.0.attn.bias": np.ones((1, 1, 4, 4), np.uint8), "lm_head.weight": t[WTE]},
    )
    block, (_, found) = model_block(gpt2), read_folder(gpt2)[-2:]
    assert block["tie_embeddings"]
    assert not found.lacking
    assert found.names["transformer.ln_f.weight"] == "ln_f.weight"
    assert_equal(found.params, weights.params)
    tensors = load_file(bert / "model.safetensors")
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    body = {k.removeprefix("bert."): v for k, v in tensors.items() if k.startswith("bert.")}
    for new, old in older.items():
        body = {k.replace(new, old): v for k, v in body.items()}
    save_file(body | {"embeddings.position_ids": np.arange(24)[None]}, bert / "model.safetensors")
    found = read_folder(bert)
    assert found.weights.lacking == ["pair", "words"]
    kept = {k: v for k, v in heads.params.items() if k in found.weights.params}
    assert {"encoder", "embed", "pooler"} <= {path.split("/")[0] for path in kept}
    assert_equal(found.weights.params, kept)
    filled = named_leaves(import_weights.whole(found))
    assert filled.keys() == heads.params.keys()
    assert_equal({k: filled[k] for k in kept}, kept)


def shards(folder, name="gpt2"):
    """Two files and an index in place of one file."""
    tensors = load_file(folder / "model.safetensors")
    names, where = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({key: tensors[key] for key in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return where


def test_shards_and_narrow_floats_are_read(folders, tmp_path):
    folder = shutil.copytree(folders["gpt2"], tmp_path / "copy")
    whole = read_tensors(folder)
    shards(folder)
    assert all(np.array_equal(read_tensors(folder)[key], whole[key]) for key in whole)
    tensors = {"a": np.arange(5, dtype=np.float16), "b": np.arange(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path)
    assert (found["a"].dtype, found["b"].dtype) == (np.float32, np.int64)
    header = json.dumps({"c": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\xc0"
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_tensors(tmp_path)["c"].tolist() == [1.0, -2.0]


# ------------------------------------------------------------------- refusals


def weights(change):
    """A damage to the tensors."""

    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def content(change):
    """A damage to the bytes of the file."""

    def damage(folder):
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return damage


def config(**fields):
    """A damage to config.json."""

    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


def index(change):
    """A damage to a folder of shards."""

    def damage(folder):
        change(folder, shards(folder))

    return damage


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def twice(folder, where):
    save_file(load_file(folder / "model-0.safetensors"), folder / "model-1.safetensors")


def rewrite(folder, where):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": where}))


LN = "transformer.ln_f.weight"
WTE = "transformer.wte.weight"
DAMAGES = [
    ("gpt2", pickled, "files of this kind can run programs"),
    ("gpt2", lambda f: (f / "model.safetensors").unlink(), "neither model.safetensors nor"),
    ("gpt2", lambda f: (f / "config.json").unlink(), "config.json: cannot be read"),
    ("gpt2", lambda f: (f / "config.json").write_text("{"), "config.json: damaged"),
    ("gpt2", content(lambda b: b[:-7]), "file not fully covered"),
    ("gpt2", content(lambda b: b[:5]), "header too small"),
    ("gpt2", content(lambda b: struct.pack("<Q", 1 << 40) + b[8:]), "header too large"),
    ("gpt2", content(lambda b: b.replace(b'"F32"', b'"F8E"', 1)), "unknown variant"),
    ("gpt2", weights(lambda t: t.pop(LN)), f"missing: {LN}"),
    ("gpt2", weights(lambda t: t.update(new=t[LN], old=t[LN])), "unknown: new, old"),
    ("gpt2", weights(lambda t: t.update({LN: t[LN].astype(np.float64)})), "has the type F64"),
    ("gpt2", weights(lambda t: t.update({LN: t[LN].astype(np.int64)})), r"ln_f.weight int64\[16\]"),
    (
        "gpt2",
        weights(lambda t: t.update({LN: t[LN][:9]})),
        r"type: transformer.ln_f.weight float32",
    ),
    ("gpt2", weights(lambda t: t.update({WTE: t[WTE][:-1]})), r"type: transformer.wte.weight"),
    ("gpt2", weights(lambda t: t.update({LN: t[LN] * np.nan})), "not finite"),
    ("gpt2", weights(lambda t: t.update({"ln_f.weight": t[LN]})), "unknown: [a-z.]*ln_f.weight"),
    ("gpt2", index(twice), "stands in another file, too"),
    ("gpt2", index(lambda f, w: (f / "model-1.safetensors").unlink()), "cannot be read"),
    ("gpt2", index(lambda f, w: rewrite(f, w | {"x": "../x.safetensors"})), "is no name of a file"),
    ("gpt2", index(lambda f, w: rewrite(f, w | {"x": "model-1.bin"})), "can run programs"),
    ("gpt2", index(lambda f, w: rewrite(f, w | {"x": "model-1.safetensors"})), "x is in no file"),
    ("gpt2", index(lambda f, w: rewrite(f, {k: w[k] for k in w if k != LN})), "not in the index"),
    ("gpt2", config(model_type="gpt3"), "Unknown model_type: 'gpt3'. Did you mean 'gpt2'"),
    ("gpt2", config(vocab_size="many"), "vocab_size must be a whole number"),
    ("gpt2", config(activation_function="mish"), "activation_function is 'mish'"),
    ("gpt2", config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is"),
    ("gpt2", config(n_head=None), "n_head is missing"),
    ("gpt2", config(n_head=3), "d_model must be an even multiple of num_heads"),
    ("gpt2", config(n_layer="two"), "num_layers must be a whole number"),
    ("bart", config(max_position_embeddings="20"), "max_position_embeddings is '20'"),
    ("bert", config(position_embedding_type="relative_key"), "position_embedding_type is 'rel"),
    ("bert", config(is_decoder=True), "is_decoder is True"),
    ("t5", config(feed_forward_proj="gated-mish"), "feed_forward_proj is 'gated-mish'"),
    ("bart", config(decoder_ffn_dim=48), "decoder_ffn_dim is 48; it must be equal to"),
    ("bart", config(normalize_before=True), "normalize_before is True"),
    ("marian", config(share_encoder_decoder_embeddings=False), "share_encoder_decoder_embeddings"),
    ("roberta", config(num_hidden_layers=3), "missing: roberta.encoder.layer.2.attention.self"),
]


@pytest.mark.parametrize(("name", "damage", "sentence"), DAMAGES)
def test_a_damaged_folder_is_one_line_and_leaves_nothing(
    folders, tmp_path, capsys, name, damage, sentence
):
    folder = shutil.copytree(folders[name], tmp_path / "copy")
    damage(folder)
    assert run_import(folder, tmp_path / "run") == 65
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert re.search(sentence, line), line
    assert not (tmp_path / "run").exists()


def test_arguments_are_checked(folders, imported, tmp_path, capsys):
    assert run_import(folders["gpt2"], imported["gpt2"]) == 64
    assert "is a run already" in capsys.readouterr().err
    assert run_import(folders["gpt2"] / "pytorch_model.bin", tmp_path / "run") == 65
    assert "can run programs" in capsys.readouterr().err
