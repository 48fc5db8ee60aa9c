"""How models of each kind read a sentence whose attention is shown."""

import csv

import numpy as np
import pytest
import translate_cases

import data
from experiments import head_roles
from experiments.attention_payload import Shown
from training import config_files


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Runs of models of all kinds that configs make, by the name of the config."""
    folder = tmp_path_factory.mktemp("pretrained")
    names = ("bert", "t5", "bart", "elmo", "classification")
    found = {}
    for name in names:
        config = config_files.load_config(f"configs/{name}.py:smoke")
        found[name] = translate_cases.save_run(folder / name, folder, config)
    return found


def test_a_model_reads_as_it_has_learned_to(pretrained):
    """BERT [CLS] text [SEP], whatever stands behind it in the batch; T5 and BART a text of
    which a part is hidden."""
    run = Shown(str(pretrained["bert"]), None, 16)
    text = "lo nix wolen lo"
    reading = run.read(data.Example("", text))
    names = run.run.tokenizer.decode(reading.source.tolist()).split()
    assert (names[0], names[-1], len(reading.target)) == ("[CLS]", "[SEP]", 0)
    assert reading.words[0] == [-1, *range(len(names) - 2), -1]
    for head, map_TS in reading.maps.items():
        assert head.part == "encoder"
        assert map_TS.shape == (len(names), len(names))
        np.testing.assert_allclose(map_TS.sum(1), 1, atol=1e-5)  # nothing is lost to padding
    assert len(run.view(reading)["source"]) == len(names)
    for name, hidden in (("t5", "<extra_id_0>"), ("bart", "[MASK]")):
        run = Shown(str(pretrained[name]), None, 16)
        reading = run.read(data.Example("one of the other side", text))
        assert run.run.tokenizer.reserved[hidden] in reading.source
        whole = run.run.tokenizer.encode(text)
        assert set(whole) <= {*reading.source.tolist(), *reading.target.tolist()}


@pytest.mark.parametrize("name", ["bert", "t5", "bart", "elmo", "classification"])
def test_each_kind_of_model_has_roles_or_one_line(pretrained, name, tmp_path, capsys):
    output = tmp_path / "roles.csv"
    code = head_roles.main([f"--workdir={pretrained[name]}", "--limit=2", f"--output={output}"])
    err = capsys.readouterr().err
    if name in ("elmo", "classification"):
        assert (code, err.count("\n")) == (64, 1)
        assert "needs kind" in err
        return
    assert code == 0
    rows = list(csv.DictReader(output.read_text().splitlines()))
    parts = {"encoder"} if name == "bert" else {"encoder", "decoder", "cross"}
    assert {row["part"] for row in rows} == parts
    assert {"induction", "next token", "rare word"} <= {row["role"] for row in rows}
