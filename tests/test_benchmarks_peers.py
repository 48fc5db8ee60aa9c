"""Both sides of the benchmarks compute the same: ours, PyTorch's, Hugging Face's."""

import contextlib

import jax
import numpy as np
import pytest

import models
from benchmarks import generation, gpu_workloads, harness, ours, recurrence, translation
from benchmarks.workloads import (
    FAMILIES,
    ON_CPU,
    Workload,
    lstm_attention,
    transformer_lm,
    transformer_seq2seq,
)
from configs.base import BERT, GPT


def test_workloads_have_the_shapes_of_their_titles():
    for workload in (*ON_CPU, *FAMILIES, *gpu_workloads.FULL.values()):
        batch = workload.batch()
        assert f"V {workload.vocab_size}" in workload.title
        assert f"B {batch['inputs'].shape[0]}" in workload.title
        assert f"T {batch['inputs'].shape[1]}" in workload.title.replace("S = T = ", "T ")
        assert batch["targets"].shape[1] == (workload.hidden or batch["inputs"].shape[1])
        sides = [batch[name] for name in ("source", "inputs") if name in batch]
        assert workload.num_tokens == sum(side.size for side in sides)
        assert min(side.min() for side in sides) >= 4, "no padding and no special ids"
        assert max(side.max() for side in sides) < workload.vocab_size


def test_our_step_trains():
    step = ours.train_step(gpu_workloads.TINY["gpt2_small"])
    losses = []
    for _ in range(8):
        step()
        losses.append(step.loss())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.01


def test_our_beam_search_writes_the_length_that_was_asked_for():
    source_BS = translation.sources(3, 6, 40)
    block = {**transformer_seq2seq(16, 2, 1), "layer_norm": "post"}
    tokens_BT = translation.Search(block, 40, source_BS, 7)()
    assert tokens_BT.shape == (3, 7)
    assert (tokens_BT[:, :-1] != 3).all(), "no end before the last place"


NARROW = {"d_model": 32, "num_heads": 4, "d_ff": 48}
SMALL = {
    "pre-norm": Workload("", transformer_seq2seq(32, 4, 2), 50, 6, 9, 7, 0.1),
    "post-norm": Workload(
        "", {**transformer_seq2seq(32, 4, 2), "layer_norm": "post"}, 50, 6, 9, 7, 0.1
    ),
    "lm": Workload("", transformer_lm(32, 4, 2), 50, 6, 0, 7),
    "lstm": Workload("", lstm_attention(24), 50, 6, 9, 7, 0.1),
    "deep lstm": Workload("", lstm_attention(24, layers=2), 50, 6, 9, 7, 0.1),
    "gpt": Workload("", {**GPT["gpt2-tiny"], **NARROW}, 50, 6, 0, 7),
    "bert": Workload("", {**BERT["bert-tiny"], **NARROW}, 50, 6, 0, 8, hidden=3),
}


def padded(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with padding of a random length at the end of each row."""
    random = np.random.default_rng(1)
    batch = {name: array.copy() for name, array in batch.items()}
    num_rows, target_length = batch["targets"].shape
    for row in range(num_rows):
        keep = random.integers(2, target_length + 1)
        for name in {"inputs", "targets", "weights", "segments"} & batch.keys():
            batch[name][row, keep:] = 0
        if "source" in batch:
            batch["source"][row, random.integers(2, batch["source"].shape[1] + 1) :] = 0
    return batch


@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "rows_are_padded"),
    # nn.LSTM takes another path where nothing is padded.
    # BERT's rows are full.
    [*((name, name != "bert") for name in SMALL), ("lstm", False)],
)
def test_the_same_weights_give_the_same_loss_and_gradient_in_pytorch(name, rows_are_padded):
    from benchmarks.peers import build
    from benchmarks.peers.training import num_parameters

    workload = SMALL[name].changed(dropout_rate=0.0)
    batch = padded(workload.batch()) if rows_are_padded else workload.batch()
    model = models.build(workload.model, workload.vocab_size)
    params = models.init(model, jax.random.key(0))["params"]
    task = ours.task_of(workload)

    def loss(params):
        sums = task.loss(model, {"params": params}, batch, jax.random.key(1), train=True)
        return sums["loss"][0] / sums["loss"][1]

    expected, gradient = jax.jit(jax.value_and_grad(loss))(params)

    peer = build.model_for(workload)
    build.copy_parameters(peer, params)
    theirs = build.loss_of(workload, peer, batch)()
    theirs.backward()
    assert theirs.item() == pytest.approx(float(expected), rel=2e-6)

    # The embedding's gradient has passed through every layer; its size tells that all do.
    embedding = peer.embedding if "lstm" in name else peer.embedding.tokens
    expected_VD = np.asarray(gradient["embed"]["embedding"])
    np.testing.assert_allclose(embedding.weight.grad.numpy(), expected_VD, atol=1e-6, rtol=1e-4)

    second_bias = {"lstm": 3, "deep lstm": 6}.get(name, 0) * 4 * 24
    assert num_parameters(peer) == models.num_parameters(params) + second_bias


@pytest.mark.heavy
@pytest.mark.interop
def test_both_sides_make_the_same_updates():
    from benchmarks.peers import build

    workload = SMALL["pre-norm"].changed(dropout_rate=0.0)
    step = ours.train_step(workload)
    peer = build.model_for(workload)
    build.copy_parameters(peer, jax.device_get(step.state.params))
    update, losses, expected = build.step_for(workload, peer), [], []
    for _ in range(5):
        step()
        expected.append(step.loss())
        losses.append(update().item())
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.heavy
@pytest.mark.interop
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_hugging_face_writes_the_same_translations_with_the_same_weights():
    import torch

    from benchmarks.peers import hugging_face

    block, source_BS = (
        {**transformer_seq2seq(32, 4, 2), "layer_norm": "post"},
        translation.sources(8, 9, 60),
    )
    source_BS[1, 6:] = source_BS[5, 3:] = 0
    search = translation.Search(block, 60, source_BS, 8)
    peer = hugging_face.marian(block, 60, 17)
    hugging_face.copy_to_marian(peer, search.variables["params"])
    inputs_BT = translation.sources(8, 7, 60)
    source = torch.from_numpy(source_BS).long()
    with torch.inference_mode():
        logits = peer(
            input_ids=source,
            attention_mask=(source != 0).long(),
            decoder_input_ids=torch.from_numpy(inputs_BT).long(),
        ).logits.numpy()
    expected = jax.jit(search.model.apply)(search.variables, source_BS, inputs_BT)
    np.testing.assert_allclose(logits, expected, atol=2e-4)
    theirs_BT = hugging_face.generate(peer, source_BS, translation.NUM_BEAMS, 8)
    same = int((theirs_BT == search()).all(axis=1).sum())
    print(f"{same} of 8 translations are the same")
    assert same >= 7  # a tie within rounding may fall otherwise


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_hugging_face_goes_on_with_the_same_tokens_with_the_same_weights():
    import torch

    from benchmarks.peers import hugging_face

    sizes = {"d_model": 32, "num_heads": 4, "d_ff": 48, "num_layers": 2, "max_positions": 24}
    block, prompts_BT = {**generation.BLOCK, **sizes}, translation.sources(4, 9, 60)
    ours = generation.Generation(block, 60, prompts_BT, 12)
    random = np.random.default_rng(0)
    noisy = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape), ours.variables)
    ours.variables = jax.tree.map(lambda x: x.astype(np.float32), noisy)  # biases too
    peer = hugging_face.published(block, 60, ours.variables["params"])
    with torch.inference_mode():
        logits = peer(torch.from_numpy(prompts_BT).long()).logits.numpy()
    expected = jax.jit(ours.model.apply)(ours.variables, prompts_BT)
    np.testing.assert_allclose(logits, expected, atol=2e-4)
    np.testing.assert_array_equal(hugging_face.go_on(peer, prompts_BT, 12), ours())


@pytest.mark.heavy
@pytest.mark.interop
def test_one_layer_is_compared_with_both_peers(monkeypatch):
    monkeypatch.setattr(recurrence, "LENGTHS", (16,))
    rows = recurrence.compare(8, rounds=1) + recurrence.memory_rows(8, 2)
    assert [row.goal for row in rows] == [1.5, 1.0, None]
    assert all(row.value > 0 for row in rows)
    gradients = recurrence.ours(8)()
    assert gradients[1].shape == (recurrence.LENGTH, recurrence.ROWS, 8)


@pytest.mark.heavy
@pytest.mark.interop
def test_a_peer_works_in_a_process_of_its_own(capfd):
    with harness.Worker("training", workload=2, dropout_rate=0.0, keep_freed_memory=True) as peer:
        assert peer() is None
        assert peer() is None
    with (
        harness.Worker("training", workload=99, dropout_rate=0.0) as peer,
        pytest.raises(RuntimeError, match="the peer's process ended"),
    ):
        peer()
    assert "IndexError" in capfd.readouterr().err


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_families_have_the_loss_and_gradient_of_hugging_face(name):
    from benchmarks.peers import hugging_face
    from benchmarks.peers.training import num_parameters

    workload = SMALL[name].changed(dropout_rate=0.0, max_positions=8)
    model = models.build(workload.model, workload.vocab_size)
    params, task = models.init(model, jax.random.key(0))["params"], ours.task_of(workload)

    def loss(params):
        sums = task.loss(model, {"params": params}, workload.batch(), jax.random.key(1), train=True)
        return sums["loss"][0] / sums["loss"][1]

    expected, gradient = jax.jit(jax.value_and_grad(loss))(params)
    peer = hugging_face.published(workload.model, workload.vocab_size, params)
    theirs = hugging_face.loss_of(peer, workload)()
    theirs.backward()
    assert theirs.item() == pytest.approx(float(expected), rel=2e-6)
    found = peer.get_input_embeddings().weight.grad.numpy()
    expected_VD = np.asarray(gradient["embed"]["embedding"])
    np.testing.assert_allclose(found, expected_VD, atol=1e-6, rtol=1e-4)
    assert num_parameters(peer) == models.num_parameters(params)


@pytest.mark.heavy
@pytest.mark.interop
def test_the_families_are_measured_side_by_side(monkeypatch):
    from benchmarks import families
    from benchmarks.peers import worker

    tiny = [gpu_workloads.TINY[name] for name in ("gpt2_small", "bert_base")]
    monkeypatch.setattr(families, "FAMILIES", tiny)
    monkeypatch.setattr(worker, "FAMILIES", tiny)

    @contextlib.contextmanager
    def here(kind, keep_freed_memory=False, **fields):
        yield worker.KINDS[kind](**fields)

    monkeypatch.setattr(harness, "Worker", here)
    for number in range(len(tiny)):
        row = families.measure(number, rounds=1)
        assert row.value > 0
        assert {"ours", families.PEER, families.KEPT} == row.columns.keys()
        assert all(cell.endswith("GiB") for cell in row.columns.values())
