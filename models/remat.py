"""What the backward pass keeps of a module: activations, or what they are computed from."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
from jax import checkpoint_policies as policies

# False keeps all, True the inputs alone (Chen et al. 2016). "dots" keeps the results of products;
# "matrices" those with weights, but not the scores of attention, which are as long as the square of
# the row; "offload" moves these to the memory of the host.
Remat = Literal[False, True, "dots", "matrices", "offload"]
POLICIES = {
    True: policies.nothing_saveable,
    "dots": policies.dots_saveable,
    "matrices": policies.dots_with_no_batch_dims_saveable,
    "offload": policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def rematerialised(
    module: type[nn.Module], remat: Remat, static_argnums: Sequence[int]
) -> type[nn.Module]:
    """The class, whose calls forget what `remat` does not keep and compute it again in the
    backward pass.

    Args:
        static_argnums: arguments that are no arrays, self counted.
    """
    if remat is False:
        return module
    return nn.remat(module, policy=POLICIES[remat], static_argnums=tuple(static_argnums))
