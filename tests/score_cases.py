"""The scores of the recurrent decoder as loops over rows, steps and words in NumPy."""

import functools

import numpy as np

from models.attention.scores import ScoreOptions

B, T, S, E, Q, D = 2, 4, 6, 3, 4, 8
BEAMS = 2
LENGTHS = (6, 4)
OPTIONS = ScoreOptions(num_heads=2, window_radius=2, max_positions=5)


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"x": (T, B, E), "keys": (B, S, D), "values": (B, S, D), "h": (B, Q)}
    found = {name: random.normal(size=shape) for name, shape in shapes.items()}
    found["valid"] = (np.arange(S) < np.array(LENGTHS)[:, None]).astype(np.float64)
    return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(unit, state, x, fed):
    c, _ = state
    gates = x @ unit["input"]["kernel"] + unit["input"]["bias"] + fed @ unit["recurrent"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def softmax(scores):
    e = np.exp(np.array(scores) - max(scores))
    return e / e.sum()


def score_of(name, p, s, h, i, covered):
    """The score of state s and key h at position i."""
    if name in ("additive", "covered"):
        inside = s @ p["query"] + h @ p["key"]["kernel"] + p["key"]["bias"]
        if name == "covered":
            inside = inside + p["coverage"] * covered[i]
        return p["v"] @ np.tanh(inside)
    if name in ("dot", "scaled_dot"):
        h = h[:Q] + h[Q:]
        return s @ h / (1 if name == "dot" else np.sqrt(Q))
    if name in ("general", "local_m", "local_p"):
        return s @ (h @ p["key"]["kernel"])
    if name == "one_layer":
        w = np.concatenate([p["query"][:, 0], p["key"]["kernel"][:, 0]])
        return w @ np.concatenate([s, h]) + p["key"]["bias"][0]
    return (s @ p["query"])[i]  # location


def weights_of(name, p, s, keys, t, covered):
    """One row of weights a head over the words of one source."""
    length, radius = len(keys), OPTIONS.window_radius
    if name == "multi_head":
        heads = np.split(s @ p["query"], 2), np.split(keys @ p["key"]["kernel"], 2, axis=1)
        return [softmax(k @ q / np.sqrt(D / 2)) for q, k in zip(*heads, strict=True)]
    seen, bell = range(length), lambda i: 1.0
    if name == "location":
        seen = range(min(length, OPTIONS.max_positions))
    if name in ("local_m", "local_p"):
        place = min(t, length - 1)
        if name == "local_p":
            place = length * sigmoid(p["place_v"] @ np.tanh(s @ p["place_hidden"]))
            bell = lambda i: np.exp(-((i - place) ** 2) / (2 * (radius / 2) ** 2))  # noqa: E731
        seen = [i for i in range(length) if place - radius <= i <= place + radius]
    row = np.zeros(length)
    row[list(seen)] = softmax([score_of(name, p, s, keys[i], i, covered) for i in seen])
    return [row * np.array([bell(i) for i in range(length)])]


def by_loop(case, params):
    """(outputs of every step, weights) of every row, one row, step and word at a time."""
    name, context_to, feeds = case
    p, given = params.get("score", {}), arrays()
    outputs, maps = [], []
    for b, length in enumerate(LENGTHS):
        keys, values = given["keys"][b, :length], given["values"][b, :length]
        if name == "multi_head":
            values = values @ p["value"]["kernel"]
        state, covered, attended = (np.zeros(Q), given["h"][b]), np.zeros(length), np.zeros(Q)
        for t in range(T):
            if context_to == "output":
                fed = np.concatenate([state[-1], attended]) if feeds else state[-1]
                state = lstm(params["unit"], state, given["x"][t, b], fed)
            rows = weights_of(name, p, state[-1], keys, t, covered)
            parts = np.split(values, len(rows), axis=1)
            context = np.concatenate([row @ part for row, part in zip(rows, parts, strict=True)])
            covered = covered + rows[0]
            if context_to == "cell":
                fed = np.concatenate([state[-1], context])
                state = lstm(params["unit"], state, given["x"][t, b], fed)
                outputs.append(np.concatenate([state[-1], context]))
            else:
                attended = np.tanh(np.concatenate([context, state[-1]]) @ params["combine"])
                outputs.append(attended)
            maps.append([np.pad(row, (0, S - length)) for row in rows])
    outputs = np.array(outputs).reshape(B, T, -1).transpose(1, 0, 2)
    return outputs, np.array(maps).reshape(B, T, -1, S).transpose(0, 2, 1, 3)
