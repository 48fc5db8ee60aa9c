"""Fine-tuning: the head, the losses against NumPy, what it begins with, and that it learns."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from model_cases import TRANSFORMER
from test_elmo import randomly

import models
import tasks
import train
from errors import ConfigError
from models.join import fill, match
from tasks.classification import Classification
from training.metrics import read_metrics
from trees import named_leaves

INNER = {
    "language_model": {"name": "transformer_lm", "num_layers": 1, **TRANSFORMER},
    "lstm": {"name": "recurrent_lm", "num_layers": 1, "embedding_size": 8, "hidden_size": 8},
    "encoder": {"name": "transformer_encoder", "num_layers": 1, **TRANSFORMER},
    "bidirectional_lm": {"name": "elmo", "embedding_size": 4, "hidden_size": 6},
}
SOURCES = {
    "text": ("entailment", 3),
    "similarity": ("similarity", 1),
    "choice": ("multiple_choice", 1),
    "tagging": ("tagging", 6),
}


def make_task(folder, form="text", inner="language_model", **options) -> Classification:
    source = {"name": SOURCES[form][0], "num_train": 40, "num_validation": 9, "num_test": 5}
    layout = "encoder" if inner == "encoder" else "language_model"
    block = {"source": source, "tokenizer": {"name": "words"}, "form": form, "layout": layout}
    return Classification(0, str(folder), **{**block, "texts_per_batch": 4, **options})


def make_model(task, inner="language_model", **options):
    block = {"name": "classifier", "inner": INNER[inner], "num_outputs": SOURCES[task.form][1]}
    block |= {"per_token": task.form == "tagging", **options}
    model = models.build(block, task.vocab_size)
    task.init_carry(model)
    return model, randomly(models.init(model, jax.random.key(0)))


def sums_of(task, model, variables, batch):
    return jax.jit(lambda v, b: task.loss(model, v, b, jax.random.key(0), False))(variables, batch)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


CASES = [(form, "language_model") for form in SOURCES]
CASES += [("text", "encoder"), ("tagging", "bidirectional_lm"), ("similarity", "lstm")]


@pytest.mark.parametrize(("form", "inner"), CASES)
def test_losses_and_answers_equal_numpy_from_the_features(tmp_path, form, inner):
    task = make_task(tmp_path, form, inner)
    model, variables = make_model(task, inner)
    batch = task.batch("train", 1)
    found, features = map(np.asarray, jax.jit(model.apply)(variables, *task.inputs(batch)))
    head = {k: np.asarray(v) for k, v in variables["params"]["scores"].items()}
    size = batch["segments"].sum(-1)
    if form == "tagging":
        seen = features
    elif inner == "encoder":
        seen = model.inner.apply(
            {"params": variables["params"]["inner"]}, features[:, 0], method="pooled"
        )[:, None]
    else:
        last = np.maximum(size - 1, 0)
        seen = np.take_along_axis(features, last[..., None, None], axis=2)[:, :, 0]
    scores = np.asarray(seen) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(found, scores, atol=1e-5)
    scores = {"similarity": scores[..., 0].sum(1), "choice": scores[..., 0]}.get(form, scores[:, 0])
    weights, labels = batch["weights"], batch["labels"]
    sums = sums_of(task, model, variables, batch)
    if form == "similarity":
        expected = (weights * (scores - labels) ** 2).sum()
    else:
        log_p = log_softmax(scores)
        expected = -(np.take_along_axis(log_p, labels[..., None], -1)[..., 0] * weights).sum()
        hits = ((log_p.argmax(-1) == labels) * weights).sum()
        assert sums["accuracy"] == pytest.approx((hits, weights.sum()))
    assert sums["loss"] == pytest.approx((expected, weights.sum()), rel=1e-5)


def test_the_auxiliary_loss_is_the_mean_over_the_tokens_of_each_text(tmp_path):
    task = make_task(tmp_path, "similarity", lm_weight=0.5)
    model, variables = make_model(task)
    batch = task.batch("train", 0)
    without = make_task(tmp_path, "similarity")
    plain = float(sums_of(without, model, variables, batch)["loss"][0])
    per_row, inner = [], jax.jit(model.inner.apply)
    for views, segments in zip(batch["inputs"], batch["segments"], strict=True):
        means = []
        for ids, inside in zip(views, segments, strict=True):
            text = ids[: inside.sum()][None]
            logits = inner({"params": variables["params"]["inner"]}, text)
            right = np.take_along_axis(
                log_softmax(np.asarray(logits[0, :-1])), text[0, 1:, None], 1
            )
            means.append(-right.mean())
        per_row.append(np.mean(means))
    sums = sums_of(task, model, variables, batch)
    assert sums["lm_loss"] == pytest.approx((sum(per_row), 4), rel=1e-5)
    assert sums["loss"][0] == pytest.approx(plain + 0.5 * sum(per_row), rel=1e-5)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("head", ["linear", "lstm"])
def test_padding_and_the_other_texts_of_a_row_change_nothing(tmp_path, inner, head):
    task = make_task(tmp_path, "choice", inner)
    model, variables = make_model(task, inner, head=head, hidden_size=3)
    batch = task.batch("train", 0)
    run = jax.jit(lambda *inputs: model.apply(variables, *inputs)[0])
    found = run(*task.inputs(batch))
    assert found.shape == (4, 3, 1)
    assert np.ptp(found, axis=1).min() > 1e-5  # other texts have other scores
    more = {k: np.pad(batch[k], [(0, 0)] * 2 + [(0, 3)]) for k in ("inputs", "segments", "types")}
    more["inputs"] = np.where(more["segments"] > 0, more["inputs"], 5)
    np.testing.assert_allclose(run(*task.inputs(more)), found, atol=1e-5)
    turned = {name: value[:, ::-1] for name, value in more.items()}
    np.testing.assert_allclose(run(*task.inputs(turned)), found[:, ::-1], atol=1e-5)


def test_dropout_is_drawn_in_training_and_reaches_the_head(tmp_path):
    task = make_task(tmp_path)
    still = {**INNER["language_model"], "dropout_rate": 0.0}
    block = {"name": "classifier", "num_outputs": 3, "inner": still, "dropout_rate": 0.5}
    model = models.build(block, task.vocab_size)
    variables, batch = models.init(model, jax.random.key(0)), task.batch("train", 0)

    def loss_of(key, train):
        return task.loss(model, variables, batch, key, train)

    loss = jax.jit(loss_of, static_argnums=1)
    losses = [
        float(loss(jax.random.key(key), train)["loss"][0])
        for key, train in ((0, True), (1, True), (0, False), (1, False))
    ]
    assert losses[0] != losses[1]
    assert losses[2] == losses[3]


REFUSED = [
    ({}, {"num_outputs": 2}, r"num_outputs is 2, .*contradiction, entailment.* needs 3"),
    ({}, {"per_token": True}, "per_token is True"),
    ({"inner": "encoder"}, {"inner": "language_model"}, "task.layout is encoder"),
    ({"inner": "lstm", "lm_weight": 0.5}, {"inner": "bidirectional_lm"}, "lm_weight is 0.5"),
    ({"max_characters": 5}, {}, "max_characters is above 0, .* needs 0"),
]


@pytest.mark.parametrize(("of_task", "of_model", "message"), REFUSED)
def test_a_model_that_does_not_fit_is_one_line(tmp_path, of_task, of_model, message):
    task = make_task(tmp_path, **of_task)
    with pytest.raises(ConfigError, match=message) as caught:
        make_model(task, **of_model)
    assert "\n" not in str(caught.value)


def test_no_encoder_decoder_is_in_a_classifier():
    for name in ("transformer_seq2seq", "classifier"):
        with pytest.raises(ConfigError, match=r"config\.model\.inner"):
            models.build({"name": "classifier", "inner": {"name": name}}, 9)


def test_a_classifier_begins_with_a_trained_model_of_fewer_words():
    """Two more ids, [CLS] and [SEP], keep their fresh vectors; so does the head."""
    inner = INNER["language_model"]
    trained = randomly(models.init(models.build(inner, 11), jax.random.key(0)))["params"]
    model = models.build({"name": "classifier", "inner": inner}, 13)
    fresh = models.init(model, jax.random.key(1))["params"]
    found = match(fresh, {"inner": trained})
    assert found.reshaped == ["inner/embed/embedding"]
    assert not found.missing
    new, old = named_leaves(fill(fresh, {"inner": trained}, found)), named_leaves(fresh)
    for name, value in named_leaves(trained).items():
        expected = np.asarray(value)
        if name == "embed/embedding":
            expected = np.concatenate([expected, old[f"inner/{name}"][11:]])
        np.testing.assert_array_equal(new[f"inner/{name}"], expected)
    np.testing.assert_array_equal(new["scores/kernel"], old["scores/kernel"])
    wider = randomly(models.init(models.build({**inner, "d_ff": 64}, 11), jax.random.key(0)))
    with pytest.raises(ConfigError, match="have no counterpart"):
        match(fresh, {"inner": wider["params"]})


def run(folder: Path, name: str, config: str, *overrides: str) -> dict:
    arguments = [f"--config=configs/{config}", f"--workdir={folder / name}"]
    arguments += [f"--config.data_dir={folder / 'data'}", "--config.parallel.num_devices=1"]
    assert train.main([*arguments, *(f"--config.{override}" for override in overrides)]) == 0
    return json.loads((folder / name / "result.json").read_text())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A folder with "data" and a language model of statements, "lm"."""
    folder = tmp_path_factory.mktemp("tuned")
    source = "task.source={'name':'entailment','num_train':64,'num_validation':8,'num_test':8}"
    run(folder, "lm", "language_model.py:smoke", source, "task.side=source", "model.num_layers=1")
    return folder


def test_fine_tuning_begins_with_a_run_and_its_tokenizer(pretrained, capsys):
    arguments = f"data=entailment,init_from={pretrained / 'lm'},fraction=0.5,smoke"
    result = run(pretrained, "tuned", f"classification.py:{arguments}", "freeze=('inner/*',)")
    said = capsys.readouterr()
    assert "parameters filled from trained models: inner/decoder" in said.err
    assert "95 % interval" in said.out
    assert {"accuracy", "macro_f1", "matthews", "perplexity"} <= result["scores"].keys()
    assert set(result["samples"][0]) == {"text", "label", "answer"}
    rows = read_metrics(pretrained / "tuned")
    assert max(row["examples"] for row in rows if row["split"] == "train") <= 3 * 32
    saved = json.loads((pretrained / "tuned" / "tokenizer" / "tokenizer.json").read_text())
    assert saved["reserved"] == ["[CLS]", "[SEP]"]
    other = ["--config.task.tokenizer={'name': 'characters'}", f"--workdir={pretrained / 'other'}"]
    command = [f"--config=configs/classification.py:{arguments}", *other]
    assert train.main([*command, f"--config.data_dir={pretrained / 'data'}"]) == 64
    assert "another tokenizer" in capsys.readouterr().err
    for more, said in (
        ("", "neither a run directory nor"),
        (",model=bert-tiny", "leave one of them out"),
    ):
        with pytest.raises(ConfigError, match=said):
            train.config_files.load_config(f"configs/classification.py:init_from=nowhere{more}", [])


# Model, and what a score must exceed: tags follow from what stands behind a word too.
LEARNED = {
    "entailment": ("lm-lstm-tiny", 0.7),
    "similarity": ("lm-transformer-tiny", 0.5),
    "tagging": ("elmo-tiny", 0.99),
}


@pytest.mark.slow
@pytest.mark.parametrize("data", LEARNED)
def test_generated_tasks_are_learned(data, tmp_path):
    model, least = LEARNED[data]
    options = ["num_steps=2500", "eval_every=2500", "save_every=2500", "task.num_buckets=1"]
    config = f"classification.py:data={data},model={model}"
    scores = run(tmp_path, "run", config, *options, "task.tokenizer={'name':'words'}")["scores"]
    assert scores["spearman" if data == "similarity" else "accuracy"] > least


def test_all_tasks_say_which_kinds_they_take():
    kinds = {model.kind for model in models.MODELS.values()}
    for name, task in tasks.TASKS.items():
        wanted = task.model_kind if isinstance(task.model_kind, tuple) else (task.model_kind,)
        assert set(wanted) <= kinds, name
