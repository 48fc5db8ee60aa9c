"""Bits per byte of a model and of xz, against codes whose length is known."""

import lzma

import numpy as np
import pytest
import translate_cases

from experiments import bits_per_byte
from experiments.bits_per_byte import compressed, xz_bytes
from training import config_files


def test_a_model_that_knows_nothing_needs_as_many_bits_as_its_tokens_have():
    texts = ["abcd", "ef"]  # 8 bytes with both line ends
    found = compressed(np.full(8, np.log(256)), np.full(8, 7), texts, ["x"])
    assert found.num_bytes == 8
    assert found.model == pytest.approx(8.0)
    assert found.unknown_rate == 0.0


def test_bytes_are_those_of_utf_8_and_unknown_tokens_are_counted():
    found = compressed(np.array([np.log(2)] * 4), np.array([1, 5, 1, 3]), ["città"], ["x"])
    assert found.num_bytes == 7
    assert found.model == pytest.approx(4 / 7)
    assert found.unknown_rate == 0.5


def test_xz_reads_the_training_text_first():
    random = np.random.default_rng(0)
    lines = ["".join(map(chr, random.integers(97, 123, 60))) for _ in range(50)]
    found = compressed(np.zeros(1), np.zeros(1), lines, lines)
    alone = 8 * xz_bytes("".join(f"{line}\n" for line in lines).encode()) / found.num_bytes
    assert found.xz == pytest.approx(alone)
    assert 4 < found.xz < 6  # log2(26) = 4.7 bits a letter
    assert found.xz_primed < 0.2  # all of it has been read before


def test_xz_is_as_strong_as_the_command():
    text = b"In the beginning God created the heavens and the earth.\n" * 40
    assert xz_bytes(text) < len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "is not a run directory"),
        ("configs/translation.py:smoke", "this needs kind language_model"),
        ("configs/gpt.py:objective=prefix,smoke", "this needs task language_modelling"),
    ],
)
def test_a_run_of_another_kind_is_one_line(tmp_path, capsys, config, words):
    run = tmp_path / "run"
    if config:
        translate_cases.save_run(run, tmp_path, config_files.load_config(config))
    assert bits_per_byte.main([f"--workdir={run}"]) == 64
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
