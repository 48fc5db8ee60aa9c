"""The one mask: what a query may look at, for every path and every mechanism."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class Mask:
    """Which keys each query may look at, kept by its reasons.

    A query sees a key of its own segment (0 is padding, seen by nobody) and, when
    causal, only keys whose position is not after its own, or that stand with it in the
    prefix of the segment. Every mechanism and both the fused and the recording path
    derive what they need from this one object.

    Attributes:
        query_segments_BT, key_segments_BS: int32, 0 for padding.
        query_positions_BT, key_positions_BS: int32; may have B = 1.
        causal: static; False for encoders and cross-attention.
        only_BTS: where given, keys that are False here are not seen either.
        one_segment: static; True where it is known when compiling that each row is one segment
            without padding, so that causality alone decides.
        query_prefix_BT, key_prefix_BS: where given, True in the prefixes of segments, whose places
            see each other both ways although the mask is causal (Liu et al. 2018; Dong et al.
            2019; Raffel et al. 2020, figure 4).
    """

    query_segments_BT: Array
    key_segments_BS: Array
    query_positions_BT: Array
    key_positions_BS: Array
    causal: bool = flax.struct.field(pytree_node=False, default=False)
    only_BTS: Array | None = None
    one_segment: bool = flax.struct.field(pytree_node=False, default=False)
    query_prefix_BT: Array | None = None
    key_prefix_BS: Array | None = None

    def dense(self) -> Array:
        """The mask as booleans, (B, 1, T, S): one for all heads."""
        key_BS = self.key_segments_BS
        seen_BTS = self.query_segments_BT[:, :, None] == key_BS[:, None, :]
        seen_BTS &= (key_BS != 0)[:, None, :]
        if self.causal:
            past_BTS = self.query_positions_BT[:, :, None] >= self.key_positions_BS[:, None, :]
            if self.query_prefix_BT is not None and self.key_prefix_BS is not None:
                past_BTS |= self.query_prefix_BT[:, :, None] & self.key_prefix_BS[:, None, :]
            seen_BTS &= past_BTS
        if self.only_BTS is not None:
            seen_BTS &= self.only_BTS
        return seen_BTS[:, None]


def positions(tokens_BT: Array) -> Array:
    """0, 1, 2, ... along the last axis, (1, T)."""
    return jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None]


def self_mask(segments_BT: Array, causal: bool, prefix_BT: Array | None = None) -> Mask:
    """Self-attention within each segment of a row; order is the order in the row."""
    place_1T = positions(segments_BT)
    mask = Mask(segments_BT, segments_BT, place_1T, place_1T, causal)
    return dataclasses.replace(mask, query_prefix_BT=prefix_BT, key_prefix_BS=prefix_BT)


def split_prefix(marked_BT: Array) -> tuple[Array, Array]:
    """(segments_BT, prefix_BT) of segments n whose prefixes are marked as -n."""
    return jnp.abs(marked_BT), marked_BT < 0


def whole_mask(tokens_BT: Array, causal: bool) -> Mask:
    """Self-attention in rows that are one segment without padding."""
    mask = self_mask(jnp.ones_like(tokens_BT), causal)
    return dataclasses.replace(mask, one_segment=True)


def cross_mask(source_segments_BS: Array, num_queries: int) -> Mask:
    """Every query looks at the whole source, which is one segment, and at no padding."""
    query_BT = jnp.ones((source_segments_BS.shape[0], num_queries), source_segments_BS.dtype)
    return Mask(query_BT, source_segments_BS, positions(query_BT), positions(source_segments_BS))


def step_mask(past_BKS: Array) -> Mask:
    """K queries over the S slots of a cache, each of which looks at its own past only."""
    all_of_it = cross_mask(jnp.ones_like(past_BKS[:, 0], jnp.int32), past_BKS.shape[1])
    return dataclasses.replace(all_of_it, only_BTS=past_BKS)


def prompt_mask(place_BT: Array, num_slots: int, end_B: Array | None = None) -> Mask:
    """The places of a prompt over the slots of a cache: each sees the slots up to its own, or
    with end_B, where the prompt ends, all before that, as the places of a prefix do."""
    last_BT = place_BT if end_B is None else jnp.broadcast_to(end_B[:, None] - 1, place_BT.shape)
    return step_mask(jnp.arange(num_slots) <= last_BT[:, :, None])


def positions_in_segment(segments_BT: Array) -> Array:
    """The place of each token within its segment, so that packed rows equal padded ones."""
    place_BT = jnp.broadcast_to(positions(segments_BT), segments_BT.shape)
    starts_BT = starts(segments_BT)
    return place_BT - jax.lax.cummax(jnp.where(starts_BT, place_BT, 0), axis=1)


def starts(segments_BT: Array) -> Array:
    """True at the first token of each segment."""
    changed = segments_BT[:, 1:] != segments_BT[:, :-1]
    return jnp.concatenate([jnp.ones_like(changed[:, :1]), changed], axis=1)
