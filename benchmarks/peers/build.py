"""The PyTorch model and training step that belong to a workload."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.peers import recurrent, transformer, weights
from benchmarks.peers.training import train_step
from benchmarks.workloads import Workload


def model_for(workload: Workload) -> nn.Module:
    """The same architecture as workload.model, freshly initialised."""
    block = workload.model
    rate = block.get("dropout_rate", 0.0)
    if block["name"] == "recurrent_seq2seq":
        return recurrent.LSTMAttentionSeq2Seq(
            workload.vocab_size, block["embedding_size"], block["hidden_size"], rate
        )
    options = transformer.Options(
        workload.vocab_size,
        block["d_model"],
        block["num_heads"],
        block["d_ff"],
        block["num_layers"] if "num_layers" in block else block["num_encoder_layers"],
        rate,
        block.get("layer_norm", "pre"),
        max_length=max(workload.source_length, workload.target_length),
    )
    if block["name"] == "transformer_lm":
        return transformer.TransformerLM(options)
    return transformer.TransformerSeq2Seq(options)


def copy_parameters(model: nn.Module, params: Mapping[str, Any]) -> None:
    """Our parameters into the peer."""
    if isinstance(model, recurrent.LSTMAttentionSeq2Seq):
        weights.copy_lstm_attention(model, params)
    else:
        weights.copy_transformer(model, params)


def tensors(
    workload: Workload, device: str = "cpu"
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """(inputs of the model, targets): the batch that our side trains on."""
    batch = workload.batch()
    names = ("source", "inputs") if workload.source_length else ("inputs",)
    inputs = tuple(torch.from_numpy(batch[name]).long().to(device) for name in names)
    return inputs, torch.from_numpy(batch["targets"]).long().to(device)


def step_for(
    workload: Workload, model: nn.Module, device: str = "cpu", bf16: bool = False
) -> Callable[[], torch.Tensor]:
    """One update of the model on the batch of the workload."""
    inputs, targets = tensors(workload, device)
    return train_step(model, inputs, targets, workload.label_smoothing, bf16=bf16)
