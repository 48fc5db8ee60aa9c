"""Models of another library and ours compute the same from the same weights."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_cases import CASES, VOCAB, completed, ids_of, shapes_of, tensors_of, theirs

import decoding
import models
from data import BOS, EOS, PAD
from data.tensor_files import write_file
from models.pretrained import FAMILIES
from trees import named_leaves

pytestmark = pytest.mark.interop
LENGTHS = (7, 3, 5)
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
of_kind = {
    kind: pytest.mark.parametrize("name", [n for n in CASES if CASES[n][0] in names])
    for kind, names in {
        "language_model": ("GPT2LMHeadModel", "OpenAIGPTLMHeadModel"),
        "encoder": ("BertForPreTraining", "RobertaForMaskedLM"),
        "seq2seq": (
            "T5ForConditionalGeneration",
            "BartForConditionalGeneration",
            "MarianMTModel",
        ),
    }.items()
}


@functools.cache
def ours(name: str):
    """(model, variables, ids) with the weights of theirs(name)."""
    found = theirs(name)
    config, tensors = found.config.to_dict(), tensors_of(found)
    family, ids = FAMILIES[config["model_type"]], ids_of(CASES[name][2])
    block = completed(family.block(config, tensors) | {"unwritten": ids.copies})
    model = models.build(block, len(ids.theirs))
    weights = family.read(tensors, block, shapes_of(model), ids)
    params = weights.params | {  # heads that their class does not have
        path: np.zeros(shape, np.float32)
        for path, shape in shapes_of(model).items()
        if path not in weights.params
    }
    assert not set(weights.lacking) - {"pooler"}
    tree = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    leaves = [jnp.asarray(params[path]) for path in named_leaves(tree)]
    return model, {"params": jax.tree.unflatten(jax.tree.structure(tree), leaves)}, ids, block


def rows(lengths=LENGTHS, seed=0):
    """Ragged rows of our ids and their mask, padded on the right."""
    tokens_BT = np.random.default_rng(seed).integers(4, VOCAB, (len(lengths), max(lengths)))
    mask_BT = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return np.where(mask_BT, tokens_BT, PAD).astype(np.int32), mask_BT


def torch_ids(tokens_BT, ids):
    import torch

    return torch.as_tensor(ids.theirs[tokens_BT])


def forward(model, **inputs):
    import torch

    with torch.no_grad():
        tensors = {k: torch.as_tensor(v) for k, v in inputs.items()}
        return model(**tensors, output_hidden_states=True)


def written(logits, ids):
    """Logits of our ids in the order of theirs."""
    return ids.write(np.moveaxis(np.asarray(logits), -1, 0))


def equal(found, expected, where):
    np.testing.assert_allclose(np.asarray(found)[where], expected.numpy()[where], **TOLERANCE)


def equal_logits(found, expected, where, ids):
    found_V = np.moveaxis(written(found, ids), 0, -1)
    np.testing.assert_allclose(found_V[where], expected.numpy()[where], **TOLERANCE)
    whole = jax.nn.logsumexp(found, axis=-1)  # over the copies, too, which take nothing away
    np.testing.assert_allclose(whole[where], expected.logsumexp(-1).numpy()[where], **TOLERANCE)


@of_kind["language_model"]
def test_language_models_agree_on_ragged_rows(name):
    model, variables, ids, _ = ours(name)
    tokens_BT, mask_BT = rows()
    found = forward(
        theirs(name), input_ids=torch_ids(tokens_BT, ids), attention_mask=mask_BT.astype(np.int64)
    )
    segments_BT = mask_BT.astype(np.int32)
    x_BTD = jax.jit(lambda *a: model.apply(*a, method="features"))(
        variables, tokens_BT, segments_BT
    )
    equal(x_BTD, found.hidden_states[-1], mask_BT)
    logits = jax.jit(model.apply)(variables, tokens_BT, segments_BT)
    equal_logits(logits, found.logits, mask_BT, ids)


@of_kind["encoder"]
def test_encoders_agree_on_ragged_rows(name):
    model, variables, ids, block = ours(name)
    tokens_BT, mask_BT = rows()
    types_BT = (np.arange(7) > 2).astype(np.int64)[None] * np.ones_like(tokens_BT, np.int64)
    types_BT *= block["num_types"] > 1
    found = forward(
        theirs(name),
        input_ids=torch_ids(tokens_BT, ids),
        attention_mask=mask_BT.astype(np.int64),
        token_type_ids=types_BT,
    )
    segments_BT = mask_BT.astype(np.int32)
    outputs = jax.jit(model.apply)(variables, tokens_BT, segments_BT, types_BT.astype(np.int32))
    equal(outputs["features"], found.hidden_states[-1], mask_BT)
    logits = found.logits if name == "roberta" else found.prediction_logits
    equal_logits(outputs["logits"], logits, mask_BT, ids)
    if name == "bert":
        pair_B2 = found.seq_relationship_logits.numpy()[:, ::-1]
        np.testing.assert_allclose(outputs["pair_logits"], pair_B2, **TOLERANCE)


@of_kind["seq2seq"]
def test_encoder_decoders_agree_on_ragged_rows(name):
    model, variables, ids, _ = ours(name)
    (source_BS, source_mask), (inputs_BT, mask_BT) = rows(), rows((4, 6, 2), seed=1)
    inputs_BT[:, 0] = BOS
    found = forward(
        theirs(name),
        input_ids=torch_ids(source_BS, ids),
        attention_mask=source_mask.astype(np.int64),
        decoder_input_ids=torch_ids(inputs_BT, ids),
    )

    @jax.jit
    def both(variables, source_BS, inputs_BT):
        encoded = model.apply(variables, source_BS, method="encode")
        logits = model.apply(variables, encoded, inputs_BT, method="decode")
        return encoded["x"], logits

    x_BSD, logits = both(variables, source_BS, inputs_BT)
    equal(x_BSD, found.encoder_last_hidden_state, source_mask)
    equal_logits(logits, found.logits, mask_BT, ids)


def generated(name, source_BS, mask, steps):
    """What their generate writes greedily, as our ids, EOS and what follows as PAD."""
    import torch

    _, _, ids, _ = ours(name)
    inverse = np.full(VOCAB, -1)
    kept = [our for our in range(len(ids.theirs)) if our not in ids.copies]
    inverse[ids.theirs[kept]] = kept
    special = CASES[name][2]
    options = {"pad_token_id": special[PAD], "eos_token_id": special[EOS]}
    banned = [[their] for their in {special[PAD], special[BOS]} - {special[EOS]}]
    with torch.no_grad():
        found = theirs(name).generate(
            torch_ids(source_BS, ids),
            attention_mask=torch.as_tensor(mask.astype(np.int64)),
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            bad_words_ids=banned or None,
            **options,
        )
    return inverse[found.numpy()]


def until_end(tokens_T):
    """Tokens before the first EOS."""
    kept = list(tokens_T)
    return kept[: kept.index(EOS)] if EOS in kept else kept


@of_kind["seq2seq"]
def test_encoder_decoders_write_the_same_greedily(name):
    model, variables, _, _ = ours(name)
    source_BS, mask = rows()
    steps = 8

    @jax.jit
    def search(variables, source_BS):
        encoded = model.apply(variables, source_BS, method="encode")
        carry = model.apply(variables, encoded, steps, 1, method="init_carry")
        step = functools.partial(model.apply, variables, method="step")
        banned = (PAD, BOS)
        return decoding.greedy_search(step, carry, len(source_BS), steps, banned=banned).tokens_BKT

    expected = generated(name, source_BS, mask, steps)[:, 1:]
    for found_T, expected_T in zip(search(variables, source_BS)[:, 0], expected, strict=True):
        assert until_end(found_T.tolist()) == until_end(expected_T.tolist())


@of_kind["language_model"]
def test_language_models_write_the_same_greedily(name):
    model, variables, _, _ = ours(name)
    prompt_BT, _ = rows((4, 4, 4))
    steps = 6
    step = jax.jit(functools.partial(model.apply, method="step"))
    carry = model.init_carry(3, 4 + steps)
    for t in range(4):
        carry, logits_BV = step(variables, carry, prompt_BT[:, t])
    written = []
    for _ in range(steps):
        logits_BV = logits_BV.at[:, np.array([PAD, BOS])].set(-jnp.inf)
        written.append(logits_BV.argmax(-1).astype(jnp.int32))
        carry, logits_BV = step(variables, carry, written[-1])
    expected = generated(name, prompt_BT, np.ones_like(prompt_BT), steps)[:, 4:]
    for found_T, expected_T in zip(np.stack(written, axis=1), expected, strict=True):
        assert until_end(found_T.tolist()) == until_end(expected_T.tolist())


@pytest.mark.parametrize("name", CASES)
def test_the_way_back_gives_every_bit(name, tmp_path):
    _, variables, ids, block = ours(name)
    found = theirs(name)
    config, tensors = found.config.to_dict(), tensors_of(found)
    family = FAMILIES[config["model_type"]]
    params = {k: np.asarray(v) for k, v in named_leaves(variables["params"]).items()}
    heads = None if name == "bert" else ("words", "bias")
    back = family.write(params, block, ids, heads)
    extra = tensors.keys() - back.keys()
    assert not {name for name in extra if name not in family.tensors.ties} - {
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
    }
    for tensor, array in back.items():
        assert array.dtype == tensors[tensor].dtype
        assert array.tobytes() == np.ascontiguousarray(tensors[tensor]).tobytes(), tensor
    kept = ("model_type", "vocab_size", "pad_token_id", "decoder_start_token_id")
    kept = {field: config.get(field) for field in kept}
    config = family.config(block, type(ours(name)[0])) | kept
    write_file(tmp_path / "model.safetensors", back)
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = type(found).from_pretrained(tmp_path).eval()
    inputs = {"input_ids": np.arange(4, 10)[None]}
    if "decoder_layers" in config or "num_decoder_layers" in config:
        inputs["decoder_input_ids"] = np.arange(6, 9)[None]
    expected, read = forward(found, **inputs), forward(again, **inputs)
    logits = "prediction_logits" if name == "bert" else "logits"
    assert bool((expected[logits] == read[logits]).all())
