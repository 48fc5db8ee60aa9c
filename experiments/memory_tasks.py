"""Two tasks that ask how long a network remembers, and training on them in one program.

delayed copy: symbols, then `delay` blanks, then a sign: say the symbols again.
adding: numbers of which two are marked: their sum at the end (Hochreiter & Schmidhuber 1997).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import models
from models.recurrent.layer import RecurrentStack
from models.recurrent.options import CellOptions
from tasks.losses import token_sums

Array = jax.Array

NUM_KINDS, NUM_SYMBOLS = 8, 1  # of symbols; ids 1 to NUM_KINDS
BLANK, SIGN, VOCAB = NUM_KINDS + 1, NUM_KINDS + 2, NUM_KINDS + 3
CELLS: dict[str, dict[str, Any]] = {
    "RNN sigmoid": {"cell": "rnn", "activation": "sigmoid"},
    "RNN tanh": {"cell": "rnn", "activation": "tanh"},
    "RNN relu": {"cell": "rnn", "activation": "relu"},
    "LSTM": {"cell": "lstm"},
    "GRU": {"cell": "gru"},
}
TRANSFORMER = "Transformer"


class Problem(NamedTuple):
    """Something to learn.

    Attributes:
        init: key -> parameters.
        draw: key -> a batch, drawn anew each time.
        loss: (parameters, batch) -> (what is minimised, error); an error of 1 is chance.
        model: of language models, to measure.
    """

    init: Callable[[Array], Any]
    draw: Callable[[Array], Any]
    loss: Callable[[Any, Any], tuple[Array, Array]]
    model: nn.Module | None = None


def draw_copy(key: Array, rows: int, delay: int) -> dict[str, Array]:
    """inputs, targets and weights (rows, 2 * NUM_SYMBOLS + delay) of delayed copy."""
    symbols_BN = jax.random.randint(key, (rows, NUM_SYMBOLS), 1, NUM_KINDS + 1)
    blanks_BT = jnp.full((rows, delay), BLANK)
    sign_B1 = jnp.full((rows, 1), SIGN)
    inputs_BT = jnp.concatenate([symbols_BN, blanks_BT, sign_B1, symbols_BN[:, :-1]], axis=1)
    told = jnp.arange(inputs_BT.shape[1]) >= NUM_SYMBOLS + delay
    targets_BT = jnp.where(told, jnp.roll(inputs_BT, -1, axis=1), 0)
    targets_BT = targets_BT.at[:, -1].set(symbols_BN[:, -1])
    weights_BT = jnp.broadcast_to(told, inputs_BT.shape).astype(jnp.float32)
    return {"inputs": inputs_BT, "targets": targets_BT, "weights": weights_BT}


def language_model(name: str, size: int) -> nn.Module:
    """The model of a name with states of `size` numbers: one layer, or two of a Transformer."""
    if name == TRANSFORMER:
        sized = {"d_model": size, "num_heads": 2, "d_ff": 4 * size, "num_layers": 2}
        block = {"name": "transformer_lm", **sized}
    else:
        sized = {"embedding_size": size, "hidden_size": size, "num_layers": 1}
        block = {"name": "recurrent_lm", **sized, **CELLS[name]}
    return models.build({**block, "dropout_rate": 0.0}, VOCAB)


def copy_problem(name: str, size: int, rows: int, delay: int) -> Problem:
    """Delayed copy for a language model; the error is that of its symbols over chance."""
    model = language_model(name, size)

    def loss(params: Any, batch: dict) -> tuple[Array, Array]:
        inputs, key = (batch["inputs"],), jax.random.key(0)
        sums = token_sums(model, {"params": params}, inputs, batch, key, False, 0.0)
        total, weight = sums["loss"]
        return total / weight, (1 - sums["accuracy"][0] / weight) / (1 - 1 / NUM_KINDS)

    def init(key: Array) -> Any:
        return models.init(model, key)["params"]

    return Problem(init, lambda key: draw_copy(key, rows, delay), loss, model)


class Adder(nn.Module):
    """A recurrent layer that reads numbers, and a number from its last state."""

    options: CellOptions
    size: int

    @nn.compact
    def __call__(self, x_TBD: Array) -> Array:
        _, h_TBH = RecurrentStack(self.size, 1, self.options)(x_TBD, False)
        return nn.Dense(1)(h_TBH[-1])[:, 0]


def adding_problem(name: str, size: int, rows: int, length: int) -> Problem:
    """The adding problem; the error is the mean square over that of always saying 1."""
    model = Adder(CellOptions(**CELLS[name]), size)

    def draw(key: Array) -> tuple[Array, Array]:
        number_key, *place_keys = jax.random.split(key, 3)
        numbers_TB = jax.random.uniform(number_key, (length, rows))
        half = length // 2
        ends = ((0, half), (half, length))
        pairs = zip(place_keys, ends, strict=True)
        places = [jax.random.randint(k, (rows,), *end) for k, end in pairs]
        marks_TB = sum(jax.nn.one_hot(place_B, length, axis=0) for place_B in places)
        return jnp.stack([numbers_TB, marks_TB], axis=-1), (numbers_TB * marks_TB).sum(0)

    def loss(params: Any, batch: tuple[Array, Array]) -> tuple[Array, Array]:
        square = jnp.square(model.apply({"params": params}, batch[0]) - batch[1]).mean()
        return square, 6 * square  # the sum of two uniform numbers has variance 1 / 6

    def init(key: Array) -> Any:
        return nn.meta.unbox(model.init(key, draw(key)[0]))["params"]

    return Problem(init, draw, loss)


def train(
    problem: Problem, num_steps: int, learning_rate: float, every: int, solved: float = 0.0
) -> list[tuple[int, float, Any]]:
    """Adam with clipping; stops when the error is below `solved`.

    Returns:
        (step, mean error of the `every` steps before it, parameters) at 0 and each `every`.
    """
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))

    def update(state: tuple, key: Array) -> tuple[tuple, Array]:
        params, moments = state
        gradient = jax.value_and_grad(problem.loss, has_aux=True)
        (_, error), grads = gradient(params, problem.draw(key))
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(params, updates), moments), error

    @functools.partial(jax.jit, static_argnums=2)
    def many(state: tuple, key: Array, count: int) -> tuple[tuple, Array]:
        state, errors = jax.lax.scan(update, state, jax.random.split(key, count))
        return state, errors.mean()

    params = jax.jit(problem.init)(jax.random.key(0))
    state, found = (params, optimizer.init(params)), [(0, 1.0, params)]
    for step in range(every, num_steps + 1, every):
        state, error = many(state, jax.random.key(step), every)
        found.append((step, float(error), state[0]))
        if found[-1][1] < solved:
            break
    return found
