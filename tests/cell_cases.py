"""Recurrent cells with their options, and the same cells as NumPy loops after the papers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.recurrent.layer import RecurrentLayer
from models.recurrent.options import CellOptions

T, B, D, H = 5, 3, 4, 6

OPTIONS = {
    "rnn": {"cell": "rnn"},
    "rnn-relu": {"cell": "rnn", "activation": "relu"},
    "rnn-sigmoid-norm": {"cell": "rnn", "activation": "sigmoid", "layer_norm": True},
    "lstm": {},
    "lstm-zoneout": {"zoneout_rate": 0.25},
    "lstm-norm-peepholes": {"layer_norm": True, "peepholes": True},
    "gru": {"cell": "gru"},
    "gru-norm-bias": {"cell": "gru", "layer_norm": True, "recurrent_bias": True},
}


def make(name: str, dtype=jnp.float32, **fields):
    """(layer, params, inputs (T, B, D)), every parameter moved off its first value."""
    layer = RecurrentLayer(H, CellOptions(**OPTIONS[name]), dtype=dtype, **fields)
    x_TBD = jax.random.normal(jax.random.key(2), (T, B, D), dtype)
    params = nn.meta.unbox(layer.init(jax.random.key(0), x_TBD))["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        (leaf + 0.3 * jax.random.normal(key, leaf.shape)).astype(dtype)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return layer, jax.tree.unflatten(tree, moved), x_TBD


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(x, scale, bias=0.0):
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return scale * (x - x.mean(-1, keepdims=True)) / deviation + bias


ACTIVATIONS = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "sigmoid": sigmoid}


def _parts(params):
    unit = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["unit"])
    return unit, unit["input"]["kernel"], unit["recurrent"], unit["input"].get("bias", 0.0)


def rnn(params, x, h, options):
    p, w, u, b = _parts(params)
    summed = x @ w + h @ u + b
    if options.layer_norm:
        summed = norm(summed, p["scale"], p["bias"])
    return (ACTIVATIONS[options.activation](summed),)


def lstm(params, x, c, h, options):
    p, w, u, b = _parts(params)
    from_x, from_h = x @ w, h @ u
    if options.layer_norm:
        from_x = norm(from_x, p["input_scale"], p["input_bias"])
        from_h = norm(from_h, p["state_scale"])
    i, f, g, o = (from_x + from_h + b).reshape(len(x), 4, H).swapaxes(0, 1)
    p_i, p_f, p_o = p["peephole"].reshape(3, H) if options.peepholes else np.zeros((3, H))
    c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
    o = sigmoid(o + p_o * c)
    return c, o * np.tanh(norm(c, p["cell_scale"], p["cell_bias"]) if options.layer_norm else c)


def gru(params, x, h, options):
    p, w, u, b = _parts(params)
    from_x, from_h = x @ w, h @ u
    if options.layer_norm:
        rz, new = slice(0, 2 * H), slice(2 * H, 3 * H)
        scale, bias, by = p["input_scale"], p["input_bias"], p["state_scale"]
        from_x = np.hstack([norm(from_x[:, at], scale[at], bias[at]) for at in (rz, new)])
        from_h = np.hstack([norm(from_h[:, at], by[at]) for at in (rz, new)])
    from_x = from_x + b
    r = sigmoid(from_x[:, :H] + from_h[:, :H])
    z = sigmoid(from_x[:, H : 2 * H] + from_h[:, H : 2 * H])
    new = np.tanh(from_x[:, 2 * H :] + r * (from_h[:, 2 * H :] + p.get("recurrent_bias", 0.0)))
    return (z * h + (1 - z) * new,)


def loop(name, params, x_TBD, carry, valid_TB=None, resets_TB=None):
    """(last carry, outputs) by a loop over time steps, in float64."""
    options = CellOptions(**OPTIONS[name])
    one_step, outputs = {"rnn": rnn, "lstm": lstm, "gru": gru}[options.cell], []
    carry = [np.asarray(state, np.float64) for state in carry]
    for t, x_BD in enumerate(np.asarray(x_TBD, np.float64)):
        if resets_TB is not None:
            carry = [np.where(resets_TB[t][:, None], 0.0, state) for state in carry]
        new = one_step(params, x_BD, *carry, options)
        rate = options.zoneout_rate
        new = [rate * o + (1 - rate) * n for o, n in zip(carry, new, strict=True)]
        if valid_TB is not None:
            old = carry
            new = [np.where(valid_TB[t][:, None], n, o) for o, n in zip(old, new, strict=True)]
        carry = new
        outputs.append(carry[-1])
    return carry, np.stack(outputs)
