"""Published weights as our parameters, and ours as theirs: tables, and pure functions over arrays.

A family is a table of tensors (their name -> our path, transform) and one of options (their field
of config.json -> our option). Nothing here reads files; published.py does.

To add a family: one file here with both tables, one line in FAMILIES.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import registry
from errors import ConfigError, DataError
from models.pretrained import bart, bert, gpt, options, t5, table
from models.pretrained.options import Options
from models.pretrained.table import Tensors, Weights
from models.pretrained.transforms import Ids

__all__ = ["FAMILIES", "Family", "Ids", "Weights", "difference", "family_of", "fitting"]

# Options that decide how a model is computed and trained, and not what it is.
FREE = ("attention", "attention_block", "dtype", "remat", "scan_layers", "dropout_rate")


class Family(NamedTuple):
    """Models of one kind of theirs.

    Attributes:
        architecture: the class that reads what we write.
    """

    tensors: Tensors
    options: Options
    architecture: str

    def block(self, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The model block of a config.json and what it goes with.

        Raises:
            DataError: a field is missing, or has no counterpart.
        """
        block = options.read(self.options, config)
        return block | {"tie_embeddings": table.is_tied(self.tensors, tensors)}

    def read(
        self,
        tensors: Mapping[str, np.ndarray],
        block: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        ids: Ids,
    ) -> Weights:
        """See table.read."""
        return table.read(self.tensors, tensors, block, shapes, ids)

    def config(self, block: Mapping[str, Any], target: Any) -> dict[str, Any]:
        """The config.json of a model block with all options, but for ids.

        Args:
            target: the class of the model.

        Raises:
            ConfigError: an option has no counterpart, by name.
        """
        written = options.write(self.options, block)
        written["tie_word_embeddings"] = block["tie_embeddings"]
        again = registry.with_defaults(target, options.read(self.options, written), ["vocab_size"])
        again["tie_embeddings"] = block["tie_embeddings"]
        if name := difference(block, again, (*FREE, "unwritten")):
            raise ConfigError(f"{name} {registry.shown(_plain(block)[name])} has no counterpart")
        return written

    def write(
        self,
        params: Mapping[str, np.ndarray],
        block: Mapping[str, Any],
        ids: Ids,
        heads: Iterable[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """See table.write."""
        return table.write(self.tensors, params, block, ids, heads)


FAMILIES: dict[str, Family] = {
    "bart": Family(bart.BART_TENSORS, bart.BART_OPTIONS, "BartForConditionalGeneration"),
    "bert": Family(bert.BERT_TENSORS, bert.OPTIONS, "BertForPreTraining"),
    "gpt2": Family(gpt.GPT2_TENSORS, gpt.GPT2_OPTIONS, "GPT2LMHeadModel"),
    "marian": Family(bart.MARIAN_TENSORS, bart.MARIAN_OPTIONS, "MarianMTModel"),
    "openai-gpt": Family(gpt.GPT1_TENSORS, gpt.GPT1_OPTIONS, "OpenAIGPTLMHeadModel"),
    "roberta": Family(bert.ROBERTA_TENSORS, bert.OPTIONS, "RobertaForMaskedLM"),
    "t5": Family(t5.TENSORS, t5.OPTIONS, "T5ForConditionalGeneration"),
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a config.json names; raises DataError."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise DataError(f"config.json: {registry.unknown('model_type', name, FAMILIES)}")
    return FAMILIES[name]


def fitting(block: Mapping[str, Any], target: Any) -> str:
    """The first family that can hold a model.

    Raises:
        ConfigError: none can; for each the option that it cannot say.
    """
    reasons = []
    for name, family in FAMILIES.items():
        if family.options.fixed["name"] != block["name"]:
            continue
        try:
            family.config(block, target)
        except ConfigError as error:
            reasons.append(f"{name}: {error}")
        else:
            return name
    raise ConfigError(
        f"No family of theirs holds this {block['name']}. {'; '.join(reasons) or 'None has it'}."
    )


def difference(
    block: Mapping[str, Any], other: Mapping[str, Any], free: Iterable[str] = FREE
) -> str:
    """The first option of two blocks with which a model computes something else, "" for none.

    Args:
        block, other: with all options; those that only one of them has differ.
        free: options that may differ.
    """
    if block["name"] != other["name"]:
        return "name"
    ignored, mine, theirs = {*free, *_without_effect(block)}, _plain(block), _plain(other)
    names = (n for n in {**mine, **theirs} if n not in ignored and mine.get(n) != theirs.get(n))
    return next(names, "")


def _plain(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block in which lists are tuples and head_dim is what it comes to."""
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in block.items()}
    width = block["d_model"] // block["num_heads"]
    return plain | {
        "head_dim": plain["head_dim"] or width,
        "num_kv_heads": plain["num_kv_heads"] or plain["num_heads"],
    }


def _without_effect(block: Mapping[str, Any]) -> tuple[str, ...]:
    """Options that the model does not read."""
    readers = {
        "relative_buckets": "relative",
        "relative_max_distance": "relative",
        "max_positions": "learned",
    }
    return tuple(name for name, scheme in readers.items() if block["positions"] != scheme)
