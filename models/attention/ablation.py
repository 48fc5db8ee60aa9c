"""Removing heads, and recording what they give: collections 'ablation' and 'heads'.

The caller may give each attention module, in collection 'ablation',

  head_mask   (H,) or (B, T, H): 0 removes a head, 1 keeps it;
  head_value  (H, K) or (B, T, H, K): what stands in the place of a removed head, else zeros;

and finds, if collection 'heads' is mutable, its output (B, T, H, K) before that.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax

Array = jax.Array


def ablation_of(module: nn.Module) -> dict[str, Array]:
    """What the caller gives a module of collection 'ablation'; mostly nothing."""
    names = ("head_mask", "head_value")
    return {
        n: module.get_variable("ablation", n) for n in names if module.has_variable("ablation", n)
    }


def ablate(out_BTHK: Array, ablation: Mapping[str, Array]) -> Array:
    """out * mask + value * (1 - mask)."""
    if "head_mask" not in ablation:
        return out_BTHK
    mask = ablation["head_mask"][..., None].astype(out_BTHK.dtype)
    kept_BTHK = out_BTHK * mask
    if "head_value" not in ablation:
        return kept_BTHK
    return kept_BTHK + ablation["head_value"].astype(out_BTHK.dtype) * (1 - mask)


def record(module: nn.Module, out_BTHK: Array) -> None:
    """Keeps the output of a module's heads where the caller asks for it."""
    module.sow("heads", "output", out_BTHK, init_fn=lambda: None, reduce_fn=lambda _, new: new)
