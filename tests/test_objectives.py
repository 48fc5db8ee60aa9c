"""Objectives that undo a corruption: their sums against all logits, and that they are learned."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import models
import tasks
from errors import ConfigError
from tests.data_cases import Texts
from training import config_files, schema

TOY = {
    "name": "toy_language",
    "num_train": 3000,
    "num_validation": 100,
    "num_test": 8,
    "max_clauses": 1,
    "num_nouns": 6,
    "num_adjectives": 4,
    "num_verbs": 4,
}
SIZES = {"d_model": 32, "num_heads": 2, "d_ff": 64, "dropout_rate": 0.0, "positions": "relative"}
PAIR = {"name": "transformer_seq2seq", "num_encoder_layers": 1, "num_decoder_layers": 1, **SIZES}
ENCODER = {"name": "transformer_encoder", "num_layers": 1, **SIZES}
LM = {"name": "transformer_lm", "num_layers": 1, **SIZES}


def build(data_dir, name, model, source=TOY, **options):
    """A task on the toy language with a tiny model of its kind."""
    block = {"name": name, "source": source, "tokenizer": {"name": "words"}, **options}
    task = tasks.build(block, seed=1, data_dir=str(data_dir))
    return task, models.build(model, task.vocab_size)


def on_text(monkeypatch, texts):
    """Makes the toy language a source of given texts."""
    monkeypatch.setattr("data.build_source", lambda block, data_dir: texts)


def learned(task, model, num_steps, rate=1e-2):
    """Mean scores on validation after so many steps of Adam."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, num_steps // 10, num_steps)
    rule = optax.adam(schedule)

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            total, weight = task.loss(model, {"params": params}, batch, key, train=True)["loss"]
            return total / weight

        updates, state = rule.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(0)
    params = models.init(model, key)["params"]
    state = rule.init(params)
    for i in range(num_steps):
        params, state = step(params, state, task.batch("train", i))
    return scores(task, model, {"params": params})


def scores(task, model, variables):
    """{name: mean over the validation split}."""
    key, totals = jax.random.key(0), {}
    sums = jax.jit(lambda batch: task.loss(model, variables, batch, key, train=False))
    for place in range(task.num_batches("validation")):
        for name, pair in sums(task.batch("validation", place)).items():
            totals[name] = totals.get(name, 0) + np.array(pair, float)
    return {name: total / weight for name, (total, weight) in totals.items()}


def unigram_entropy(task):
    """Of the tokens that are to be found out: what a model reaches that reads nothing."""
    batches = [task.batch("validation", i) for i in range(task.num_batches("validation"))]
    targets = np.concatenate([batch["targets"][batch["weights"] > 0] for batch in batches])
    shares = np.unique(targets, return_counts=True)[1] / len(targets)
    return -(shares * np.log(shares)).sum()


ROWS = {"sequence_length": 16, "sequences_per_batch": 64}
NAMES = ("denoising", "masked_language_modelling", "prefix_language_modelling")
CASES = [
    ("masked_language_modelling", ENCODER, 350, {"nsp": False}),
    ("denoising", PAIR, 100, {"objective": "span_corruption", "noise_rate": 0.3}),
    ("denoising", PAIR, 100, {"objective": "text_infilling", "noise_rate": 0.3}),
    ("denoising", PAIR, 100, {"objective": "prefix"}),
    ("prefix_language_modelling", LM, 100, {}),
    (
        "prefix_language_modelling",
        LM | {"bidirectional_prefix": True},
        100,
        {"bidirectional": True},
    ),
]


@pytest.mark.parametrize(("name", "model", "num_steps", "options"), CASES)
def test_a_tiny_model_learns_the_toy_language(data_dir, name, model, num_steps, options):
    task, built = build(data_dir, name, model, **ROWS, **options)
    found, floor = learned(task, built, num_steps), unigram_entropy(task)
    print(f"nll {found['nll']:.3f}, accuracy {found['accuracy']:.3f}, unigrams {floor:.3f}")
    assert found["nll"] < 0.7 * floor


def topics(num_texts, seed):
    """Texts about one thing after another, in runs of six: neighbours share their words."""
    random = np.random.default_rng(seed)
    lines = []
    for i in range(num_texts):
        words = random.integers(4, size=5) + 4 * (i // 6 % 5)
        lines.append(("x", " ".join(f"w{word}" for word in words)))
    return lines


def test_a_tiny_model_learns_which_texts_are_neighbours(data_dir, monkeypatch):
    source = Texts(train=topics(3000, 1), validation=topics(600, 2), test=topics(60, 3))
    on_text(monkeypatch, source)
    task, model = build(data_dir, "masked_language_modelling", ENCODER, **ROWS)
    found = learned(task, model, 250, rate=5e-3)
    print({name: round(float(value), 3) for name, value in found.items()})
    assert found["pair_accuracy"] > 0.8


def test_masked_sums_are_those_of_all_logits(data_dir):
    task, model = build(data_dir, "masked_language_modelling", ENCODER, **ROWS)
    variables, key = models.init(model, jax.random.key(1)), jax.random.key(0)
    batch = task.batch("train", 3)
    batch["pairs"][:5] = 0  # as in rows without a second text
    run = jax.jit(lambda batch: task.loss(model, variables, batch, key, train=False))
    sums = {name: np.array(pair) for name, pair in run(batch).items()}
    whole = jax.jit(model.apply)(variables, *task.inputs(batch))
    log_p_BTV = np.asarray(jax.nn.log_softmax(whole["logits"]))
    log_p_B2 = np.asarray(jax.nn.log_softmax(whole["pair_logits"]))
    nll = hits = pair_nll = pair_hits = 0.0
    for row, at in zip(*np.nonzero(batch["weights"]), strict=True):
        log_p_V, right = log_p_BTV[row, batch["places"][row, at]], batch["targets"][row, at]
        nll, hits = nll - log_p_V[right], hits + (log_p_V.argmax() == right)
    for row in np.flatnonzero(batch["pairs"]):
        right = batch["is_next"][row]
        pair_nll -= log_p_B2[row, right]
        pair_hits += log_p_B2[row].argmax() == right
    num_tokens, num_pairs = batch["weights"].sum(), batch["pairs"].sum()
    wanted = {
        "loss": (nll + batch["places"].shape[1] * pair_nll, num_tokens),
        "nll": (nll, num_tokens),
        "accuracy": (hits, num_tokens),
        "pair_loss": (pair_nll, num_pairs),
        "pair_accuracy": (pair_hits, num_pairs),
    }
    assert sums.keys() == wanted.keys()
    for name, pair in wanted.items():
        np.testing.assert_allclose(sums[name], pair, rtol=1e-4, err_msg=name)
    halves = [run({k: v[cut] for k, v in batch.items()}) for cut in (slice(32), slice(32, 64))]
    for name in wanted:
        both = np.sum([np.array(half[name]) for half in halves], axis=0)
        np.testing.assert_allclose(both, sums[name], rtol=1e-4, err_msg=name)
    nll_BP = task.token_losses(model, variables, batch)[0]
    np.testing.assert_allclose(nll_BP.sum(), nll, rtol=1e-4)
    assert task.count(batch) == {"tokens": int(num_tokens), "examples": 64}


def test_padding_decides_nothing(data_dir):
    """Whatever ids stand where segments are 0, and in places of weight 0."""
    task, model = build(data_dir, "masked_language_modelling", ENCODER, **ROWS)
    variables, key = models.init(model, jax.random.key(1)), jax.random.key(0)
    batch = task.batch("train", 0)
    changed = {name: array.copy() for name, array in batch.items()}
    changed["inputs"][batch["segments"] == 0] = 7
    changed["types"][batch["segments"] == 0] = 1
    changed["places"][batch["weights"] == 0] = 15
    changed["targets"][batch["weights"] == 0] = 9
    assert (batch["segments"] == 0).any()
    assert (batch["weights"] == 0).any()
    run = jax.jit(lambda batch: task.loss(model, variables, batch, key, train=False))
    for name, pair in run(batch).items():
        np.testing.assert_allclose(run(changed)[name], pair, rtol=1e-5)


def test_a_few_corrupted_texts_are_shown_with_what_the_model_writes(data_dir):
    task, model = build(data_dir, "denoising", PAIR, **ROWS)
    variables = models.init(model, jax.random.key(1))
    samples = task.evaluate(model, variables, "validation").samples
    assert len(samples) == 5
    for sample in samples:
        assert sample["source"].count("<extra_id_0>") == 1
        assert sample["reference"].startswith("<extra_id_0>")
        assert isinstance(sample["output"], str)
    assert jnp.isfinite(scores(task, model, variables)["nll"])


BAD = [
    ("bert", "task.mask_rate=1.5", "config.task.mask_rate must be a number of at least 0 and bel"),
    ("bert", "task.nsp=1", "config.task.nsp must be true or false"),
    ("bert", "task.side=both", "config.task.side: Unknown value: 'both'. Known: source, target."),
    ("t5", "task.objective=spans", "Known: prefix, span_corruption, text_infilling."),
    ("t5", "task.mean_span=0", "config.task.mean_span must be a number above 0"),
    ("bart", "task.noise_rat=0.2", "Did you mean 'noise_rate'?"),
    ("gpt", "task.packed=2", "config.task.packed must be true or false"),
    (
        "gpt",
        "model.bidirectional_prefix=true",
        "config.task.bidirectional (False) must be the same",
    ),
    ("bert", "model.bidirectional_prefix=true", "Unknown option of model 'transformer_encoder'"),
]
BAD_ARGUMENTS = [
    ("bert:model=bert-minni", "Did you mean 'bert-mini'?"),
    ("bert:model=gpt2-mini", "Unknown value: 'gpt2-mini'."),
    ("gpt:objective=casual", "Did you mean 'causal'?"),
    (
        "gpt:objective=bidirectional_prefix,model=lm-lstm-tiny",
        "objective=bidirectional_prefix needs a model that can read both ways, and "
        "model=lm-lstm-tiny is a recurrent_lm",
    ),
    ("t5:objective=prefx", "Did you mean 'prefix'?"),
    ("bart:permute=maybe", "permute must be true or false"),
]


def refusal(config, *overrides):
    def read():
        loaded = config_files.load_config(config, overrides)
        schema.validate(loaded, models=models.MODELS, tasks=tasks.TASKS)

    with pytest.raises(ConfigError) as caught:
        read()
    return str(caught.value)


def test_bad_options_are_refused_in_one_line(data_dir):
    for name, override, words in BAD:
        message = refusal(f"configs/{name}.py:smoke", f"--config.{override}")
        assert words in message, message
        assert "\n" not in message
    for argument, words in BAD_ARGUMENTS:
        message = refusal(f"configs/{argument.replace(':', '.py:', 1)}")
        assert words in message, message
        assert "\n" not in message
    for name, model, options, words in (
        (NAMES[1], ENCODER, {"sequence_length": 4}, "sequence_length must be at least 8, got 4"),
        (NAMES[2], LM, {"sequence_length": 1}, "sequence_length must be at least 2, got 1"),
        (NAMES[0], PAIR, {"sequence_length": 900, "mean_span": 1.0}, "there are 100 sentinels"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(data_dir, name, model, **options)


def test_pairs_need_two_types_of_tokens(data_dir):
    task, model = build(data_dir, "masked_language_modelling", {**ENCODER, "num_types": 1}, **ROWS)
    variables = models.init(model, jax.random.key(1))
    with pytest.raises(ConfigError, match=r"config\.task\.nsp needs two types of tokens"):
        task.token_losses(model, variables, task.batch("train", 0))
