"""The command that translates: text in, text out.

The models have random parameters: what they write is no copy of the source, but the same every
time, and the search itself is the business of test_decoding.py.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from translate_cases import LINES, REPO, digest, make_run, params_of, run_command

import data
import trained
from experiments import translate
from tasks.search import Translator


@pytest.mark.parametrize("name", ["transformer", "lstm-attention", "lstm"])
def test_one_line_out_for_each_line_in(runs, name, tmp_path, capfdbinary):
    file = tmp_path / "source.txt"
    file.write_bytes("\n".join(LINES).encode())  # the last line has no end
    before = digest(runs[name])
    code, out, err = run_command(capfdbinary, f"--workdir={runs[name]}", f"--input={file}")
    assert (code, err) == (0, "")
    run = trained.load_run(runs[name], "seq2seq")
    translator = Translator(run.model, run.variables, run.tokenizer, num_beams=1, max_length=64)
    expected = translator.translate(LINES)
    assert out.decode() == "".join(f"{line}\n" for line in expected)
    assert [bool(line) for line in expected] == [bool(line.strip()) for line in LINES]
    assert digest(runs[name]) == before


def test_options_reach_the_search(runs, tmp_path, capfdbinary):
    file = tmp_path / "source.txt"
    file.write_text("a b c d e f\nb a\n")
    found = {}
    for options in ((), ("--num_beams=4", "--length_penalty=9")):
        for batch_size in (1, 32):
            arguments = [f"--workdir={runs['transformer']}", f"--input={file}", *options]
            code, out, _ = run_command(capfdbinary, *arguments, f"--batch_size={batch_size}")
            assert code == 0
            assert found.setdefault(options, out) == out, "the batch size changed a translation"
    run = trained.load_run(runs["transformer"], "seq2seq")
    lines = ["a b c d e f", "b a"]
    for options, (beams, alpha) in zip(found, ((1, 1.0), (4, 9.0)), strict=True):
        translator = Translator(
            run.model, run.variables, run.tokenizer, num_beams=beams, length_penalty=alpha
        )
        assert found[options].decode().splitlines() == translator.translate(lines)


def test_a_line_is_answered_before_the_next_one_is_sent(runs):
    """Over pipes, as another program would use it; nothing but translations comes out."""
    command = [sys.executable, "experiments/translate.py", f"--workdir={runs['lstm']}"]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPO, env=environment, **pipes) as process:
        answers = []
        for line in (b"a b\n", b"\n", b"c d\r\n"):
            process.stdin.write(line)
            process.stdin.flush()
            answers.append(process.stdout.readline())
        rest, errors = process.communicate(b"a b")
    assert (process.returncode, errors) == (0, b"")
    assert answers[1] == b"\n"
    assert rest == answers[0] != b"\n"


def test_long_lines_are_cut_and_named(runs, tmp_path, capfdbinary, caplog):
    file = tmp_path / "source.txt"
    file.write_text("a b\nc d e f g\na b c d\n\na b c d e\n")
    arguments = [f"--workdir={runs['transformer']}", f"--input={file}"]
    code, cut, _ = run_command(capfdbinary, *arguments, "--max_length=5", "--batch_size=2")
    assert code == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{file}, line {line}: 5 tokens, cut to 4 (--max_length 5 with the end)." for line in (2, 5)
    ]
    file.write_text("a b\nc d e f\na b c d\n\na b c d\n")
    _, short, _ = run_command(capfdbinary, *arguments, "--max_length=5")
    assert cut == short


@pytest.mark.parametrize("name", ["transformer", "lstm-attention"])
def test_attention_weights_are_kept(runs, name, tmp_path, capfdbinary):
    file, weights = tmp_path / "source.txt", tmp_path / "weights.npz"
    file.write_text("a b c\n\nd e f g\n")
    arguments = [f"--workdir={runs[name]}", f"--input={file}"]
    _, plain, _ = run_command(capfdbinary, *arguments)
    code, out, _ = run_command(capfdbinary, *arguments, f"--attention={weights}")
    assert (code, out) == (0, plain)
    with np.load(weights, allow_pickle=False) as arrays:
        lines = {key.split("/")[0] for key in arrays}
        assert lines == {"1", "3"}
        for line in lines:
            source, target = arrays[f"{line}/source"], arrays[f"{line}/target"]
            text = out.decode().splitlines()[int(line) - 1]
            assert source.tolist() == [
                *file.read_text().splitlines()[int(line) - 1].split(),
                "</s>",
            ]
            assert target.tolist() == [*text.split(), "</s>"]
            layers = [key for key in arrays if key.startswith(f"{line}/")]
            layers = [key for key in layers if arrays[key].dtype == np.float32]
            assert len(layers) == {"transformer": 6, "lstm-attention": 1}[name]
            for key in layers:
                encoder, itself = "encoder" in key, "self_attention" in key
                num_queries = len(source if encoder else target)
                num_keys = len(target if itself and not encoder else source)
                assert arrays[key].shape[1:] == (num_queries, num_keys), key
                np.testing.assert_allclose(arrays[key].sum(axis=-1), 1, atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["source.txt", "weights.npz"]


def test_weights_of_a_cache_and_of_a_whole_pass_agree(runs):
    """The hypothesis that was searched for is the one whose weights are kept."""
    run = trained.load_run(runs["lstm-attention"], "seq2seq")
    translator = Translator(run.model, run.variables, run.tokenizer, num_beams=1)
    source = translator.encode(["a b c"])[0]
    target = translator.translate_ids([source])[0]
    inputs = np.concatenate([[data.BOS], target[:-1]])[None].astype(np.int32)
    logits_BTV = jax.jit(run.model.apply)(run.variables, source[None], inputs)
    allowed = logits_BTV.at[..., [data.PAD, data.BOS]].set(-np.inf)
    np.testing.assert_array_equal(allowed[0].argmax(axis=-1), target)


def test_a_failure_leaves_the_old_file_of_weights(runs, tmp_path, capfdbinary):
    file, weights = tmp_path / "source.txt", tmp_path / "weights.npz"
    weights.write_text("old")
    file.write_bytes(b"a b\nc \xff d\n")
    arguments = [f"--workdir={runs['transformer']}", f"--input={file}", f"--attention={weights}"]
    code, out, err = run_command(capfdbinary, *arguments, "--batch_size=1")
    assert code == 65
    assert err == f"error: {file}, line 2: not UTF-8 (invalid start byte at byte 3).\n"
    assert out.count(b"\n") == 1  # what came before is out
    assert weights.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["source.txt", "weights.npz"]


def test_which_parameters_are_used(tmp_path):
    """Like the final scores: a mean, a moving average, the best one, or the newest."""
    cases = [
        ({}, None, lambda p: p[3]),
        ({}, 1, lambda p: p[1]),
        ({"ema_decay": 0.9}, None, lambda p: p[3] / 2),
        ({"average_checkpoints": 2}, None, lambda p: (p[2] + p[3]) / 2),
        ({"average_checkpoints": 2, "ema_decay": 0.9}, None, lambda p: (p[2] + p[3]) / 4),
        ({"average_checkpoints": 2}, 3, lambda p: p[3]),
        ({"early_stopping_patience": 4}, None, lambda p: p[2]),
        ({"early_stopping_patience": 4}, 3, lambda p: p[3]),
    ]
    folder = make_run(tmp_path / "run", tmp_path, "lstm-tiny")
    model = trained.load_run(folder, "seq2seq").model
    saved = params_of(model)
    config = json.loads((folder / "config.json").read_text())
    for fields, step, expected in cases:
        (folder / "config.json").write_text(json.dumps(config | fields))
        found = trained.load_run(folder, "seq2seq", step).variables["params"]
        leaves = [jax.tree.leaves(saved[step]) for step in (1, 2, 3)]
        for got, *parts in zip(jax.tree.leaves(found), *leaves, strict=True):
            np.testing.assert_allclose(got, expected(dict(enumerate(parts, 1))), rtol=1e-6)
    print(f"{len(cases)} cases")


def test_lines_are_cut_at_line_feeds_only(tmp_path):
    text = "a\u2028b\n\r\nc\x0bd\x85e\r\n\n" + "long " * 40_000 + "\nno end"
    expected = ["a\u2028b", "", "c\x0bd\x85e", "", "long " * 40_000, "no end"]
    file = tmp_path / "source.txt"
    file.write_bytes(text.encode())
    num_cases = 0
    for limit in (1, 2, 3, 100):
        batches = list(translate.read_batches(str(file), limit))
        assert [line for _, lines in batches for line in lines] == expected
        assert all(len(lines) <= limit for _, lines in batches)
        starts = np.cumsum([1] + [len(lines) for _, lines in batches])
        assert [number for number, _ in batches] == starts[:-1].tolist()
        num_cases += 1
    print(f"{num_cases} sizes of batches")
