"""Names of the arrays in a tree: of parameters, of their shapes, or of all that a run saves."""

from typing import Any

import jax


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves in their order by paths such as "encoder/layers_0/self_norm/scale".

    Raises:
        ValueError: two of them have the same path.
    """
    leaves = jax.tree.leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("Two arrays of a tree have the same path.")
    return named
