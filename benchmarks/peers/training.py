"""A training step in PyTorch: loss, backward pass, clipping, fused AdamW."""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def mean_loss(
    logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float, pad: int = 0
) -> torch.Tensor:
    """Cross-entropy in nats per token that is not padding (Szegedy et al. 2016 for smoothing)."""
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=pad,
        label_smoothing=label_smoothing,
    )


def train_step(
    model: nn.Module,
    loss_of: Callable[[], torch.Tensor],
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    clip_norm: float = 1.0,
    bf16: bool = False,
) -> Callable[[], torch.Tensor]:
    """A function that makes one update of the model and returns the loss.

    Args:
        loss_of: the mean loss of a batch.
        clip_norm: global norm of the gradient is cut to this; 0 leaves it alone.
        bf16: run products in bfloat16 (autocast); parameters and loss stay float32.
    """
    model.train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, learning_rate, betas=(0.9, 0.98), eps=1e-9, weight_decay=weight_decay, fused=True
    )
    device = matrices[0].device.type
    precision = torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext()

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with precision:
            loss = loss_of()
        loss.backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        return loss.detach()

    return step


def num_parameters(model: nn.Module) -> int:
    """Trained numbers; a matrix that is used twice counts once."""
    return sum(parameter.numel() for parameter in model.parameters())
