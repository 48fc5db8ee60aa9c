"""A prefix that is read both ways: the mask, gradients, steps, data, and the whole path."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import apply, make, tokens
from test_data_corrupted_batches import epoch_of
from test_data_corrupted_batches import make as make_batches
from trainer_cases import make_data_dir

import train
from data import BOS
from errors import ConfigError
from experiments import generate
from experiments.comparison.tokens import positions
from models.attention import dot_product, dot_product_attention, fused_attention
from models.attention.positions import Scheme
from models.masks import self_mask, split_prefix
from trained import load_run, load_task
from training import config_files

LENGTH = 7
SCHEMES = Scheme.__args__
SIZES = {"name": "transformer_lm", "num_layers": 2, "d_model": 16, "num_heads": 2, "d_ff": 32}
BLOCK = SIZES | {"bidirectional_prefix": True, "relative_buckets": 8, "relative_max_distance": 6}
PREFIX = np.array([3, 5, 1])  # of each row
PACKED = np.array([[-1, -1, 1, 1, -2, -2, -2, 2, 0], [1, 1, -2, -2, -2, -2, 0, 0, 0]], np.int32)


def marked(prefix_B, length=LENGTH):
    return np.where(np.arange(length) < np.asarray(prefix_B)[:, None], -1, 1).astype(np.int32)


def sees(marked_T, query, key) -> bool:
    """By the words: of the same segment, and before or both in the prefix."""
    one, other = marked_T[query], marked_T[key]
    return abs(one) == abs(other) != 0 and (key <= query or (one < 0 and other < 0))


def test_the_mask_is_what_its_words_say():
    mask = self_mask(*_arguments(PACKED))
    num_seen = 0
    for row, seen_TS in zip(PACKED, np.asarray(mask.dense())[:, 0], strict=True):
        for query, key in np.ndindex(seen_TS.shape):
            assert seen_TS[query, key] == sees(row, query, key)
            num_seen += seen_TS[query, key] and key > query
    assert num_seen == 1 + 3 + 6  # pairs of places in the prefixes


def _arguments(marked_BT):
    segments_BT, prefix_BT = split_prefix(jnp.asarray(marked_BT))
    return segments_BT, True, prefix_BT


@pytest.mark.parametrize(
    ("positions", "path"),
    [(scheme, "plain") for scheme in SCHEMES]
    + [(scheme, path) for scheme in ("relative", "rotary") for path in ("train", "recorded")],
)
def test_a_prefix_is_read_both_ways_and_the_rest_is_causal(positions, path):
    """Exact zeros behind the prefix; d logits[t] / d embedding of the word at each place."""
    model, variables = make(BLOCK, positions=positions, tie_embeddings=False)
    model = model.clone(dtype="bfloat16" if path == "train" else "float32")
    inputs_1T, prefix = np.arange(4, 10, dtype=np.int32)[None], 3  # each word once
    options = {
        "train": {"train": True, "rngs": {"dropout": jax.random.key(0)}},
        "recorded": {"mutable": "intermediates"},
    }.get(path, {})

    def logits_TV(table):
        params = {**variables["params"], "embed": {"embedding": table}}
        out = apply(model, {"params": params}, inputs_1T, marked([prefix], 6), **options)
        return (out[0] if path == "recorded" else out)[0].sum(-1)

    table = variables["params"]["embed"]["embedding"]
    jacobian_TVE = np.asarray(jax.jit(jax.jacrev(logits_TV))(table))
    influence_TT = np.abs(jacobian_TVE[:, inputs_1T[0]]).max(-1)
    row = marked([prefix], 6)[0]
    seen_TT = np.array([[sees(row, t, s) for s in range(6)] for t in range(6)])
    assert (influence_TT[~seen_TT] == 0.0).all()
    if path != "train":  # dropout may hide a word
        assert (influence_TT[seen_TT] > 0).all()


@pytest.mark.parametrize(
    ("positions", "attention"),
    [
        *((scheme, "fused") for scheme in SCHEMES),
        ("relative", "dot_product"),
        ("relative", "blockwise"),
    ],
)
def test_steps_after_a_prefix_equal_the_whole(positions, attention):
    """Ragged prefixes in one pass, padding that holds NaN, then a token at a time."""
    model, variables = make(BLOCK, positions=positions, tie_embeddings=False, attention=attention)
    model = model.clone(attention_block=2)
    inputs_BT = tokens(len(PREFIX), LENGTH)
    whole_BTV = apply(model, variables, inputs_BT, marked(PREFIX))
    recorded_BTV, _ = apply(model, variables, inputs_BT, marked(PREFIX), mutable="intermediates")
    np.testing.assert_allclose(recorded_BTV, whole_BTV, atol=1e-5)
    broken = jax.tree.map(np.array, variables)
    broken["params"]["embed"]["embedding"][0] = np.nan
    prompt_BT = np.where(marked(PREFIX) < 0, inputs_BT, 0)[:, : PREFIX.max()]
    carry = model.init_carry(len(PREFIX), LENGTH)
    carry, logits_BV = apply(model, broken, carry, prompt_BT, PREFIX, method="prefill")
    rows_B, place_B = np.arange(len(PREFIX)), PREFIX - 1
    np.testing.assert_allclose(logits_BV, whole_BTV[rows_B, place_B], atol=1e-5)
    for _ in range(LENGTH - PREFIX.min()):
        place_B = np.minimum(place_B + 1, LENGTH - 1)
        token_B = inputs_BT[rows_B, place_B]
        new, logits_BV = apply(model, broken, carry, token_B, method="step")
        at = place_B == np.asarray(new["state"]["position"]) - 1  # others are done
        np.testing.assert_allclose(
            logits_BV[at], whole_BTV[rows_B[at], place_B[at]], atol=1e-5, err_msg=str(place_B)
        )
        carry = new
    causal_BTV = apply(model, variables, inputs_BT)
    assert np.abs(whole_BTV[0] - causal_BTV[0]).max() > 1e-3
    np.testing.assert_allclose(whole_BTV[2], causal_BTV[2], atol=1e-5)  # a prefix of one token


@pytest.mark.parametrize("positions", SCHEMES)
def test_a_row_that_is_all_prefix_is_read_as_by_an_encoder(positions):
    """With the same parameters; relative positions tell before from behind."""
    model, variables = make(BLOCK, positions=positions)
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    block = {k: v for k, v in BLOCK.items() if k not in ("num_layers", "bidirectional_prefix")}
    pair, others = make(block | layers | {"name": "transformer_seq2seq"}, positions=positions)
    params = {**others["params"], **variables["params"]}
    params["encoder"] = variables["params"]["decoder"]
    params["decoder"] = others["params"]["decoder"]
    inputs_BT = tokens(2, LENGTH)
    found = apply(model, variables, inputs_BT, -np.ones_like(inputs_BT), method="features")
    expected = apply(pair, {"params": params}, inputs_BT, method="encode")["x"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("positions", SCHEMES)
def test_packed_documents_keep_their_own_prefixes_even_beside_nan(positions):
    model, variables = make(BLOCK, positions=positions, tie_embeddings=False)
    lone_2T = tokens(2, 4)
    packed_1T = np.concatenate([*lone_2T, [0]])[None].astype(np.int32)
    expected = apply(model, variables, lone_2T, marked([2, 3], 4))
    variables["params"]["embed"]["embedding"][0] = np.nan
    found = apply(model, variables, packed_1T, PACKED[:1])
    np.testing.assert_allclose(found[0, :4], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[0, 4:8], expected[1], atol=1e-5)


def test_a_second_prompt_is_a_prefix_behind_the_first():
    """The first does not see it, and it sees both ways and back."""
    model, variables = make(BLOCK)
    inputs_1T = tokens(1, 5)
    carry = model.init_carry(1, 6)
    for part in (inputs_1T[:, :2], inputs_1T[:, 2:]):
        length_1 = np.array([part.shape[1]])
        carry, _ = apply(model, variables, carry, part, length_1, method="prefill")
    whole = model.init_carry(1, 6)
    whole, _ = apply(model, variables, whole, inputs_1T, np.array([5]), method="prefill")
    caches = [np.asarray(c["memory"]["caches"][1][0])[..., :5] for c in (carry, whole)]
    assert (np.abs(caches[0] - caches[1]).max((0, 1, 2)) > 1e-4)[:2].all()
    assert carry["state"]["position"] == whole["state"]["position"] == 5


def test_the_kernel_of_a_gpu_gets_all_of_the_mask(monkeypatch):
    """Its own rule of causality would hide the prefix."""
    kernel = jax.nn.dot_product_attention

    def on_cpu(*arguments, implementation, **options):
        assert implementation == "cudnn"
        return kernel(*arguments, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", on_cpu)
    monkeypatch.setattr(dot_product, "_in_cudnn", lambda *arguments: True)
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 9, 2, 4)).astype(np.float32)
    segments_BT, causal, prefix_BT = _arguments(PACKED)
    for mask in (self_mask(segments_BT, causal, prefix_BT), self_mask(segments_BT, causal)):
        expected, _ = dot_product_attention(q, k, v, mask)
        np.testing.assert_allclose(fused_attention(q, k, v, mask)[0], expected, atol=1e-6)


def test_marks_of_a_prefix_are_where_nothing_is_predicted_but_at_its_last_place(data_dir):
    plain, with_marks = (make_batches(data_dir, kind) for kind in ("prefix", "marked"))
    for one, other in zip(epoch_of(plain), epoch_of(with_marks), strict=True):
        for name in one.keys() - {"segments"}:
            np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_array_equal(one["segments"], np.abs(other["segments"]))
        for row in np.flatnonzero(one["index"] >= 0):
            first = np.flatnonzero(one["weights"][row])[0]  # predicts the first of the rest
            assert (other["segments"][row, : first + 1] == -1).all()
            assert (other["segments"][row, first + 1 :] >= 0).all()


def test_a_model_is_trained_so_and_reads_a_prompt_so(tmp_path, capfdbinary):
    """The whole path; log-probabilities are those of a pass with the prompt as prefix."""
    run, config = tmp_path / "run", "configs/gpt.py:objective=bidirectional_prefix,model=gpt2-tiny"
    data_dir = make_data_dir(tmp_path / "data")
    fields = [f"--config.data_dir={data_dir}", "--config.parallel.num_devices=1"]
    assert train.main([f"--config={config},smoke", f"--workdir={run}", *fields]) == 0
    saved = json.loads((run / "config.json").read_text())
    assert saved["model"]["bidirectional_prefix"]
    assert saved["task"]["bidirectional"]
    capfdbinary.readouterr()
    prompt = ["--prompt=the cat", "--logprobs", "--max_new_tokens=3", "--temperature=0"]
    assert generate.main([f"--workdir={run}", *prompt]) == 0
    (line,) = capfdbinary.readouterr().out.splitlines()
    found = json.loads(line)
    task = load_task(load_run(run, "language_model"))
    assert task.inputs(task.batch("train", 0))[1].min() == -1
    read, new = load_run(run, "language_model"), found["ids"]
    ids = [BOS, *read.tokenizer.encode("the cat")]
    whole = np.array([ids + new], np.int32)
    logits = apply(read.model, read.variables, whole, marked([len(ids)], whole.shape[1]))
    log_p_TV = np.asarray(jax.nn.log_softmax(logits[0]))
    expected = [log_p_TV[len(ids) - 1 + i, token] for i, token in enumerate(new)]
    np.testing.assert_allclose(found["log_probs"][: len(new)], expected, atol=1e-4)


def test_the_place_in_a_document_is_counted_over_its_prefix():
    batch = {"targets": PACKED, "segments": PACKED}
    position_BT, _ = positions(batch, np.zeros(2, int))
    assert position_BT[0, :8].tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    assert position_BT[1, :6].tolist() == [1, 2, 1, 2, 3, 4]


def test_other_configs_are_as_they_were():
    for objective in ("causal", "prefix"):
        config = config_files.load_config(f"configs/gpt.py:objective={objective}")
        assert "bidirectional_prefix" not in config.model
        assert "bidirectional" not in config.task


def test_a_classifier_reads_no_prefix():
    given = "configs/classification.py:data=entailment,smoke,model=lm-transformer-tiny"
    config = config_files.load_config(given, ["--config.model.inner.bidirectional_prefix=True"])
    with pytest.raises(ConfigError, match=r"bidirectional_prefix \(True\)"):
        train.check(config)
