"""Scores within a window of the source around a place (Luong et al. 2015, 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp

from models.attention.scores.base import Arrays, Linear, matrix, vector, wide
from models.attention.scores.dot import General

Array = jax.Array


class LocalM(General):
    """`general`, seen through a window [p - D, p + D] that moves on: p_t = t.

    D is window_radius. The target may be longer than the source: p then stays at the
    source's last word.
    """

    def shared(self) -> Arrays:
        return {"radius": jnp.asarray(self.options.window_radius, jnp.float32)}

    @classmethod
    def init_state(cls, valid_BS: Array, dtype: Any) -> Arrays:
        return {"position": jnp.zeros((valid_BS.shape[0], 1), jnp.float32)}

    @classmethod
    def place(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        return jnp.minimum(state["position"], _lengths(shared) - 1)

    @classmethod
    def advance(cls, state: Arrays, weights_BHS: Array) -> Arrays:
        return {"position": state["position"] + 1}

    @classmethod
    def normalise(cls, scores_BHS: Array, shared: Arrays, place: Array) -> Array:
        seen_BS = (shared["valid"] > 0) & (jnp.abs(_distance(shared, place)) <= shared["radius"])
        return jax.nn.softmax(wide(scores_BHS), axis=-1, where=seen_BS[:, None])


class LocalP(General):
    """`general` in a window around a place that the query predicts, under a bell curve.

      p = S sigmoid(v^T tanh(W s))     weights = softmax(scores) exp(-(i - p)^2 / (2 (D/2)^2))

    S is the number of source words (Luong et al. 2015, eq. 9 and 10). As there, the curve
    comes after the softmax over the window, so the weights need not sum to 1.
    """

    def setup(self) -> None:
        super().setup()
        size = self.query_size
        self.place_hidden = matrix(self, "place_hidden", ("hidden", "mlp"), (size, size))
        self.place_v = vector(self, "place_v", "mlp", size)

    def weights(self) -> Arrays:
        return {"place": self.place_hidden.astype(self.dtype)}

    def shared(self) -> Arrays:
        radius = jnp.asarray(self.options.window_radius, jnp.float32)
        return {"radius": radius, "place_v": self.place_v.astype(self.dtype)}

    @classmethod
    def place(cls, linear: Linear, shared: Arrays, state: Arrays, query_BQ: Array) -> Array:
        score_B1 = (jnp.tanh(linear("place", query_BQ)) @ shared["place_v"])[:, None]
        return _lengths(shared) * jax.nn.sigmoid(wide(score_B1))

    @classmethod
    def normalise(cls, scores_BHS: Array, shared: Arrays, place: Array) -> Array:
        distance_BS = _distance(shared, place)
        bell_BS = jnp.exp(-2 * jnp.square(distance_BS / shared["radius"]))
        return LocalM.normalise(scores_BHS, shared, place) * bell_BS[:, None]


def _lengths(shared: Arrays) -> Array:
    return wide(shared["valid"]).sum(1, keepdims=True)


def _distance(shared: Arrays, place_B1: Array) -> Array:
    return jnp.arange(shared["valid"].shape[1], dtype=jnp.float32) - place_B1
