"""Models, by name. They are Linen modules and know nothing of data, tasks or files.

The kinds share one contract (see README): a `language_model` has `__call__(tokens_BT)`,
`init_carry(batch_size, max_len, num_beams)`, `step(carry, token_R)` and, for prompts at once,
`prefill(carry, tokens_BT, lengths_B)`; a `seq2seq` has
`encode`, `decode`, `init_carry(encoded, max_len, num_beams)` and `step`; an `encoder` has
`__call__(tokens_BT, segments_BT, types_BT)`, which gives a dict. Step by step equals the whole
sequence. A `bidirectional_lm` has `features(inputs_BT, targets_BT)` of both directions and
`layers(tokens_BT)`; a `classifier` holds a model of another kind, `inner`, and gives scores.

A carry is {"state": what belongs to one hypothesis, "memory": what all hypotheses of a row
share}, every leaf with the batch first; decoding/ says how a search uses it. `features` and
`output_layer` give what `logits` multiplies, and `output_bias` what it adds or None; where the
layer is None, features are logits. (An encoder's go through `token_features` first.) What a
model sows under 'penalties', (B, T), training adds to the loss.

Suffixes of arrays name their axes, here, in `decoding/` and in `analysis/`:
  B batch   T target or query length   S source or key length   D d_model   H heads
  K head_dim   F d_ff   V vocabulary   N layers   E embedding   G gates   A scores' width
  W window, block or characters   M random features or landmarks   R hash rounds or rows
  Q query's width   O texts of a row: options or orders

To add a model: one file here, one line in MODELS, one preset in configs/base.py;
tests/test_contract.py then says what it still lacks.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import registry
from models.classifier import Classifier
from models.convolutional.seq2seq import ConvolutionalSeq2Seq
from models.hybrid import HybridSeq2Seq
from models.memory_network import MemoryNetwork
from models.recurrent.elmo import ELMo
from models.recurrent.language_model import RecurrentLM
from models.recurrent.seq2seq import RecurrentSeq2Seq
from models.transformer.encoder import TransformerEncoder
from models.transformer.models import TransformerLM, TransformerSeq2Seq

MODELS: dict[str, type[nn.Module]] = {
    "classifier": Classifier,
    "convolutional_seq2seq": ConvolutionalSeq2Seq,
    "elmo": ELMo,
    "hybrid_seq2seq": HybridSeq2Seq,
    "memory_network": MemoryNetwork,
    "recurrent_lm": RecurrentLM,
    "recurrent_seq2seq": RecurrentSeq2Seq,
    "transformer_encoder": TransformerEncoder,
    "transformer_lm": TransformerLM,
    "transformer_seq2seq": TransformerSeq2Seq,
}


def build(block: Mapping[str, Any], vocab_size: int, path: str = "config.model") -> nn.Module:
    """The model that a config block names; a wrong name or option is a ConfigError."""
    model = _built(block, vocab_size, path)
    jax.eval_shape(lambda: init_boxed(model, jax.random.key(0)))  # the model's own checks
    return model


def _built(block: Mapping[str, Any], vocab_size: int, path: str) -> nn.Module:
    """The model with the models of the blocks in its block, unchecked."""
    target = registry.choose("model", MODELS, block, path)
    parts = {
        name: _built(block.get(name), vocab_size, f"{path}.{name}")
        for name in getattr(target, "blocks", ())
    }
    own = {key: value for key, value in block.items() if key not in parts}
    return registry.build("model", MODELS, own, path, vocab_size=vocab_size, **parts)


def init_boxed(model: nn.Module, key: jax.Array) -> dict:
    """Fresh variables in which each parameter carries the names of its axes."""
    return {"params": model.init(key, *example_inputs(model))["params"]}


def example_inputs(model: nn.Module) -> tuple[jax.Array, ...]:
    """The smallest arguments that the model can be called with."""
    tokens = jnp.ones((1, 2), jnp.int32)
    if "characters" in (getattr(part, "embedding", "") for part in (model, inner_of(model))):
        tokens = jnp.ones((1, 2, 3), jnp.int32)
    if model.kind == "classifier":
        return (tokens[None],)
    return (tokens, tokens) if model.kind == "seq2seq" else (tokens,)


def inner_of(model: nn.Module) -> nn.Module:
    """The model that reads text: of a classifier the one in it."""
    return model.inner if model.kind == "classifier" else model


def init(model: nn.Module, key: jax.Array) -> dict:
    """Fresh variables {"params": ...} as plain arrays."""
    return nn.meta.unbox(init_boxed(model, key))


def num_parameters(variables: Any) -> int:
    """Counts parameters, embeddings included."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables))
