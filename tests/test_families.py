"""Presets of the families: published sizes, and what a fresh model computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import tokens

import models
from configs import base

FAMILIES = base.GPT | base.BERT | base.T5 | base.BART | base.MARIAN
BERT_HEADS = ("transform", "transform_norm", "logits_bias", "pair")

# Preset: vocabulary, parameters, and what of ours is not counted among them. The sums are those
# of the classes of `transformers` (OpenAIGPTLMHeadModel, BertModel, T5ForConditionalGeneration,
# ...) on the published configs, less rows of positions that no token ever has (two a table of
# RoBERTa and BART), and tables that are not learned (Marian's two of 512 x 512). They hold the
# bias of BART's and Marian's logits, zeros, for a buffer.
PUBLISHED = {
    "gpt1-base": (40478, 116_534_784, ()),
    "gpt2-small": (50257, 124_439_808, ()),
    "gpt2-medium": (50257, 354_823_168, ()),
    "gpt2-large": (50257, 774_030_080, ()),
    "gpt2-xl": (50257, 1_557_611_200, ()),
    "bert-base": (30522, 109_482_240, BERT_HEADS),
    "bert-large": (30522, 335_141_888, BERT_HEADS),
    "roberta-base": (50265, 124_645_632 - 2 * 768, BERT_HEADS),
    "roberta-large": (50265, 355_359_744 - 2 * 1024, BERT_HEADS),
    "t5-small": (32128, 60_506_624, ()),
    "t5-base": (32128, 222_903_552, ()),
    "t5-large": (32128, 737_668_096, ()),
    "t5-3b": (32128, 2_851_598_336, ()),
    "t5-11b": (32128, 11_307_321_344, ()),
    "t5v1.1-small": (32128, 76_961_152, ()),
    "t5v1.1-base": (32128, 247_577_856, ()),
    "t5v1.1-large": (32128, 783_150_080, ()),
    "t5v1.1-xl": (32128, 2_849_757_184, ()),
    "t5v1.1-xxl": (32128, 11_135_332_352, ()),
    "bart-base": (50265, 139_420_416 - 2 * 2 * 768, ("logits_bias",)),
    "bart-large": (50265, 406_291_456 - 2 * 2 * 1024, ("logits_bias",)),
    "marian-base": (58101, 74_410_496 - 2 * 512 * 512, ("logits_bias",)),
}
WITH_BOTH_HEADS = {"bert-base": 110_106_428, "bert-large": 336_226_108}  # BertForPreTraining


@functools.cache
def sizes(name: str, vocab_size: int) -> dict[str, int]:
    """Parameters of each part; under a scan, so that one layer is traced for all."""
    model = models.MODELS[FAMILIES[name]["name"]](
        vocab_size=vocab_size,
        scan_layers=True,
        **{key: value for key, value in FAMILIES[name].items() if key != "name"},
    )
    params = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"]
    return {part: models.num_parameters(tree) for part, tree in params.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_size_has_the_published_parameters(name):
    vocab_size, expected, without = PUBLISHED[name]
    found = sizes(name, vocab_size)
    assert sum(count for part, count in found.items() if part not in without) == expected
    if name in WITH_BOTH_HEADS:
        assert sum(found.values()) == WITH_BOTH_HEADS[name]


def test_every_preset_is_published_or_for_this_machine():
    own = {name for name in FAMILIES if name.endswith(("-tiny", "-mini"))}
    assert FAMILIES.keys() - own == PUBLISHED.keys()
    assert len(own) == 2 * len({name.rpartition("-")[0] for name in FAMILIES})


BERT = {"vocab_size": 30522}
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
BART = {
    "d_model": 768,
    **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in (
        ("layers", 6), ("ffn_dim", 3072), ("attention_heads", 12),
    )},
}  # fmt: skip
THEIRS = {
    "gpt1-base": ("OpenAIGPT", "LMHeadModel", {}),
    "gpt2-small": ("GPT2", "LMHeadModel", {}),
    "bert-base": ("Bert", "Model", BERT),
    "roberta-base": ("Roberta", "Model", ROBERTA),
    "t5-small": ("T5", "ForConditionalGeneration", {}),
    "bart-base": ("Bart", "ForConditionalGeneration", BART),
}


@pytest.mark.interop
@pytest.mark.parametrize("name", THEIRS)
def test_the_published_parameters_are_those_of_transformers(name):
    import torch
    import transformers

    family, head, options = THEIRS[name]
    config = getattr(transformers, f"{family}Config")(**options)
    with torch.device("meta"):
        theirs = getattr(transformers, f"{family}{head}")(config)
    rows = {"roberta-base": 2 * 768, "bart-base": 2 * 2 * 768}.get(name, 0)
    assert theirs.num_parameters() - rows == PUBLISHED[name][1]


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "t5v1.1", "marian"])
def test_a_fresh_model_of_a_family_is_unsure(name):
    """Logits near unit variance, whatever is scaled and tied."""
    vocab_size, inputs_BT = 50, tokens(4, 16)
    block = FAMILIES[f"{name}-tiny"]
    one = {key: 1 for key in block if key.endswith("_layers")}
    model = models.build({**block, **one}, vocab_size)
    arguments = (inputs_BT, inputs_BT) if model.kind == "seq2seq" else (inputs_BT,)

    @jax.jit
    def run(key):
        return model.apply(models.init(model, key), *arguments)

    out = run(jax.random.key(0))
    logits = out["logits"] if model.kind == "encoder" else out
    assert 0.5 < np.std(logits) < 2
    nll = -jax.nn.log_softmax(logits).mean()
    assert nll < np.log(vocab_size) + 2
    assert jnp.isfinite(logits).all()
