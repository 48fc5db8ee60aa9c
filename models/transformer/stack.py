"""A stack of blocks, in a Python loop or under one scan, whole or step by step."""

from typing import Any

import flax.linen as nn
import jax

from models.attention.positions import Positions, Terms
from models.remat import Remat, rematerialised
from models.transformer.block import Block, BlockOptions, Context, KeysValues, Slots
from registry import ConfigError

Array = jax.Array


class Entrance(nn.Module):
    """What stands before the layers of a stack: positions, and a norm if there is one."""

    options: BlockOptions

    def _setup_entrance(self, causal: bool) -> None:
        options = self.options
        self.positions = Positions(
            options.positions,
            options.d_model,
            options.num_heads,
            options.head_dim,
            causal,
            options.dtype,
        )
        if options.embedding_norm:
            self.embedding_norm = options.make_norm()

    def enter(self, x: Array, place: Array | None, length: int) -> Array:
        """Embeddings as the first layer sees them, but for dropout; see Positions.embed."""
        x = self.positions.embed(x, place, length)
        return self.embedding_norm(x) if self.options.embedding_norm else x

    def terms(self, query_BT: Array, key_BS: Array) -> Terms:
        """What positions change in self-attention; see Positions.terms."""
        return self.positions.terms(query_BT, key_BS)


class Stack(Entrance):
    """Blocks one after another; with pre-layer-norm a last norm follows them.

    Attributes:
        heads: of the self-attention of each block, and of its cross-attention.
        remat: which activations within a block are forgotten and computed again in the backward
            pass; see models/remat.py.
        scan_layers: one compiled body with parameters stacked on a leading axis "layers":
            compiles in the time of one layer. Its parameters are laid out otherwise than
            those of the loop, so a checkpoint of one is not a checkpoint of the other.
        causal: whether places see no later ones, for the positions; the mask is of each call.
    """

    heads: tuple[tuple[int, ...], ...] = ()
    cross: bool = False
    remat: Remat = False
    scan_layers: bool = False
    causal: bool = False

    def setup(self) -> None:
        self._setup_entrance(self.causal)
        block = rematerialised(Block, self.remat, (3,))
        if self.scan_layers:
            if len(set(self.heads)) > 1:
                raise ConfigError(
                    "config.model.scan_layers needs layers that are alike, and "
                    "config.model.heads_kept has other numbers for some."
                )
            self.layers = block(self.options, self.heads[0], self.cross)
        else:
            self.layers = [block(self.options, heads, self.cross) for heads in self.heads]
        if self.options.layer_norm == "pre":
            self.norm = self.options.make_norm()

    def __call__(self, x_BTD: Array, context: Context, train: bool) -> Array:
        """Runs all layers over the whole sequence."""
        if self.scan_layers:

            def body(block: Block, x_BTD: Array, context: Context) -> tuple[Array, None]:
                return block(x_BTD, context, train), None

            scan = nn.scan(
                body,
                variable_axes={"params": 0, "ablation": 0, "intermediates": 0, "heads": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=len(self.heads),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x_BTD, _ = scan(self.layers, x_BTD, context)
        else:
            for layer in self.layers:
                x_BTD = layer(x_BTD, context, train)
        return self._finish(x_BTD)

    def _finish(self, x_BTD: Array) -> Array:
        return self.norm(x_BTD) if self.options.layer_norm == "pre" else x_BTD

    def _call(self, i: int, method: str, *args: Any) -> Any:
        """Calls a method of layer i, also where the layers live stacked under a scan."""
        if not self.scan_layers:
            return getattr(self.layers[i], method)(*args)
        variables = jax.tree.map(lambda leaf: leaf[i], nn.meta.unbox(self.layers.variables))
        block = Block(self.options, self.heads[i], self.cross, parent=None)
        return block.apply(variables, *args, method=method)

    def memory(self, encoded_BSD: Array) -> list[KeysValues]:
        """Each layer's keys and values of the encoder's output."""
        return [self._call(i, "memory", encoded_BSD) for i in range(len(self.heads))]

    def step(
        self,
        x_BTD: Array,
        caches: list[KeysValues],
        slots: Slots,
        memory: list[KeysValues] | None = None,
    ) -> tuple[Array, list[KeysValues]]:
        """One position of T hypotheses through all layers: its features and the new caches."""
        new = []
        for i, cache in enumerate(caches):
            x_BTD, cache = self._call(i, "step", x_BTD, cache, slots, memory[i] if memory else None)
            new.append(cache)
        return self._finish(x_BTD), new
