"""The PyTorch model and training step that belong to a workload."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers import recurrent, transformer, weights
from benchmarks.peers.training import mean_loss, train_step
from benchmarks.workloads import Workload

OWN_NAMES = {field.name for field in dataclasses.fields(transformer.Options)}


def model_for(workload: Workload) -> nn.Module:
    """The same architecture as workload.model, freshly initialised."""
    block = workload.model
    if block["name"] == "recurrent_seq2seq":
        return recurrent.LSTMAttentionSeq2Seq(
            workload.vocab_size,
            block["embedding_size"],
            block["hidden_size"],
            block.get("num_encoder_layers", 1),
            block.get("dropout_rate", 0.0),
        )
    known = {name: value for name, value in block.items() if name in OWN_NAMES}
    layers = block["num_layers"] if "num_layers" in block else block["num_encoder_layers"]
    longest = max(workload.source_length, workload.target_length)
    fields = {"max_positions": longest, **known, "num_layers": layers}
    if block["name"] == "transformer_encoder":
        fields.setdefault("num_types", 2)
    options = transformer.Options(workload.vocab_size, **fields)
    return TRANSFORMERS[block["name"]](options)


TRANSFORMERS: dict[str, Callable[[transformer.Options], nn.Module]] = {
    "transformer_encoder": transformer.TransformerEncoder,
    "transformer_lm": transformer.TransformerLM,
    "transformer_seq2seq": transformer.TransformerSeq2Seq,
}


def copy_parameters(model: nn.Module, params: Mapping[str, Any]) -> None:
    """Our parameters into the peer."""
    if isinstance(model, recurrent.LSTMAttentionSeq2Seq):
        weights.copy_lstm_attention(model, params)
    else:
        weights.copy_transformer(model, params)


def loss_of(
    workload: Workload, model: nn.Module, batch: Mapping[str, np.ndarray], device: str = "cpu"
) -> Callable[[], torch.Tensor]:
    """The mean loss of the model on a batch of the workload."""
    here = {
        name: torch.from_numpy(array).to(device)
        for name, array in batch.items()
        if name not in ("weights", "pairs")
    }
    here = {name: array.long() for name, array in here.items()}
    targets, smoothing = here["targets"], workload.label_smoothing
    if workload.hidden:

        def both() -> torch.Tensor:
            logits, pairs = model(here["inputs"], here["types"], here["places"])
            return mean_loss(logits, targets, smoothing) + F.cross_entropy(pairs, here["is_next"])

        return both
    inputs = [here[name] for name in ("source", "inputs") if name in here]
    return lambda: mean_loss(model(*inputs), targets, smoothing)


def step_for(
    workload: Workload,
    model: nn.Module,
    device: str = "cpu",
    bf16: bool = False,
    compiled: bool = False,
) -> Callable[[], torch.Tensor]:
    """One update of the model on the batch of the workload; `compiled`: with its loss."""
    loss = loss_of(workload, model, workload.batch(), device)
    return train_step(model, torch.compile(loss) if compiled else loss, bf16=bf16)
