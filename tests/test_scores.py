"""Scores: each example once, whatever the batches and devices; BLEU as sacreBLEU's command."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from model_cases import SEQ2SEQ, VOCAB, tokens

import models
import tasks
from tasks.losses import token_sums
from training import parallel
from training.meter import add_sums, means


class Pairs:
    """A split of `size` random pairs in batches of `rows`, the last one filled up."""

    def __init__(self, size: int, rows: int):
        self.size, self.rows = size, rows
        rng = np.random.default_rng(size)
        self.source, self.inputs = tokens(size, 4, seed=1), tokens(size, 5, seed=2)
        self.targets = tokens(size, 5, seed=3)
        self.weights = (np.arange(5) < rng.integers(1, 6, size)[:, None]).astype(np.float32)

    def batches(self):
        for start in range(0, self.size, self.rows):
            parts = {}
            for name in ("source", "inputs", "targets", "weights"):
                piece = getattr(self, name)[start : start + self.rows]
                parts[name] = np.pad(piece, ((0, self.rows - len(piece)), (0, 0)))
            yield parts


@pytest.mark.parametrize("devices", [1, 8])
def test_evaluation_equals_numpy_whatever_the_sizes(devices):
    model = models.build(SEQ2SEQ["lstm-attention"], VOCAB)
    params = models.init(model, jax.random.key(0))["params"]
    block = {"strategy": "pmap", "num_devices": devices, "mesh": (0, 1, 1), "canonical_shards": 0}
    strategy = parallel.build_strategy(block)

    def sums(params, batch):
        inputs = (batch["source"], batch["inputs"])
        return token_sums(model, {"params": params}, inputs, batch, None, False, 0.0)

    eval_step, tried = strategy.eval_step(sums), 0
    logits_of = jax.jit(lambda s, i: model.apply({"params": params}, s, i))
    for size in range(1, 34):
        pairs = Pairs(size, rows=8 if size % 2 else 5)
        totals: dict = {}
        for batch in pairs.batches():
            add_sums(totals, eval_step(params, strategy.put(batch))[0])
        whole = Pairs(size, rows=33)
        (batch,) = whole.batches()
        logits_BTV = np.asarray(logits_of(batch["source"], batch["inputs"]), np.float64)[:size]
        log_probs_BTV = logits_BTV - np.log(np.exp(logits_BTV).sum(-1, keepdims=True))
        right_BT = np.take_along_axis(log_probs_BTV, pairs.targets[..., None], -1)[..., 0]
        expected = -(right_BT * pairs.weights).sum() / pairs.weights.sum()
        found = means(totals)
        assert found["loss"] == pytest.approx(expected, rel=1e-5)
        assert found["perplexity"] == pytest.approx(np.exp(expected), rel=1e-4)
        assert totals["loss"][1] == pairs.weights.sum()
        tried += 1
    print(f"{tried} sizes on {devices} device(s)")
    assert tried == 33


def test_bleu_and_chrf_are_those_of_the_sacrebleu_command(tmp_path):
    block = {
        "name": "translation",
        "source": {"name": "toy_language", "num_train": 40, "num_validation": 9, "num_test": 7},
        "tokenizer": {"name": "words"},
        "tokens_per_batch": 128,
        "num_beams": 2,
    }
    task = tasks.build(block, seed=0, data_dir=str(tmp_path))
    examples = task.source.pairs("test")
    outputs = [example.target for example in examples]
    outputs[0], outputs[3] = "something else", outputs[3].rsplit(" ", 1)[0]

    class Parrot:
        def translate(self, sources, poll):
            assert sources == [example.source for example in examples]
            poll()
            return outputs

    task.translator = lambda model, variables: Parrot()
    polled = []
    found = task.evaluate(None, None, "test", lambda: polled.append(1))
    (tmp_path / "references.txt").write_text("\n".join(e.target for e in examples) + "\n")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "references.txt")]
    command += ["--metrics", "bleu", "chrf", "--width", "6", "--format", "json"]
    done = subprocess.run(
        command, input="\n".join(outputs) + "\n", capture_output=True, text=True, check=True
    )
    bleu, chrf = json.loads(done.stdout)
    assert found.scores["bleu"] == pytest.approx(bleu["score"], abs=1e-5)
    assert found.scores["chrf"] == pytest.approx(chrf["score"], abs=1e-5)
    assert found.notes["bleu_signature"] == bleu["signature"]
    assert found.notes["chrf_signature"] == chrf["signature"]
    assert found.scores["exact_match"] == pytest.approx(5 / 7)
    assert polled
    assert set(found.samples[0]) == {"source", "reference", "output"}
