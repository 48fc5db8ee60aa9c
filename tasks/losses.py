"""The output layer and its cross-entropy, in chunks of tokens."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trees import constrain, devices_of, spread

Array = jax.Array

CHUNK = 512  # tokens whose logits are held at once; measured best on CPU


def cross_entropy(
    x_ND: Array,
    kernel_VD: Array | None,
    targets_N: Array,
    weights_N: Array,
    label_smoothing: float = 0.0,
    bias_V: Array | None = None,
) -> dict[str, Array]:
    """Sums of loss, negative log-likelihood and hits, without ever holding all logits.

    With label smoothing e, the loss of a token is (1 - e) * nll + e * mean over the
    vocabulary of -log p (Szegedy et al. 2016). Gradients of x and kernel are made in the
    forward pass, chunk by chunk, so memory is CHUNK * V instead of N * V. Only "loss" has
    gradients. A token of weight 0 counts for nothing, even where its x is NaN.

    Args:
        x_ND: features, any floating type.
        kernel_VD: output matrix, one row for each word. None: x are logits, held all at once.
        targets_N: int32 ids.
        weights_N: float32.
        label_smoothing: 0 to 1.
        bias_V: added to the products with kernel_VD.

    Returns:
        {"loss", "nll", "hits"}: float32 scalars, sums of weight times value.
    """
    x_ND = jnp.where((weights_N > 0)[:, None], x_ND, 0)
    if kernel_VD is None:
        loss, nll, hits = _chunk(label_smoothing, x_ND, targets_N, weights_N)[0]
        return {"loss": loss, "nll": nll, "hits": hits}

    def of_tokens(x_ND: Array, targets_N: Array, weights_N: Array) -> tuple[Array, ...]:
        x_CND, targets_CN, weights_CN = _in_chunks(x_ND, targets_N, weights_N)
        return _sums(label_smoothing, x_CND, kernel_VD, bias_V, targets_CN, weights_CN)

    sums = _on_each_device(of_tokens, x_ND, targets_N, weights_N)
    loss, nll, hits = (value.sum() for value in sums)
    return {"loss": loss, "nll": nll, "hits": hits}


def token_nll(
    x_ND: Array,
    kernel_VD: Array | None,
    targets_N: Array,
    weights_N: Array,
    bias_V: Array | None = None,
) -> Array:
    """The negative log-likelihood of each token in nats, (N,), in the same chunks; 0 where the
    weight is. Differentiable, a chunk computed again at a time."""
    x_ND = jnp.where((weights_N > 0)[:, None], x_ND, 0)
    matrix_VD = None if kernel_VD is None else _whole(kernel_VD, x_ND.dtype)

    @jax.checkpoint
    def of_chunk(at: tuple[Array, Array]) -> Array:
        logits_NV = at[0] if matrix_VD is None else _logits(at[0], matrix_VD, bias_V)
        (_, nll_N, _), _, _ = _tokens(0.0, logits_NV, at[1])
        return nll_N

    def of_tokens(x_ND: Array, targets_N: Array, weights_N: Array) -> Array:
        x_CND, targets_CN, weights_CN = _in_chunks(x_ND, targets_N, weights_N)
        nll_CN = jax.lax.map(of_chunk, (x_CND, targets_CN))
        return jnp.where(weights_CN > 0, nll_CN, 0).reshape(-1)[: x_ND.shape[0]]

    nll_N = _on_each_device(of_tokens, x_ND, targets_N, weights_N)
    return nll_N.reshape(-1)[: x_ND.shape[0]]


def _on_each_device(function: Callable[..., Any], *values_N: Array) -> Any:
    """What a function makes of arrays (N, ...); on a mesh, of each device's share of them, stacked.

    A sum over chunks that are spread would be a sum over devices in every chunk.
    """
    if not spread():
        return function(*values_N)
    axes, num = devices_of("batch", "length")

    def share(values: Array) -> Array:
        parts = _cut(values, -(-values.shape[0] // num))
        return constrain(parts, ("batch", "length"), *[None] * values.ndim)

    return jax.vmap(function, spmd_axis_name=axes or None)(*map(share, values_N))


def _whole(kernel_VD: Array, dtype: Any) -> Array:
    """The matrix in this type; on a mesh in shares of the vocabulary alone, gathered once for all
    chunks."""
    return constrain(kernel_VD.astype(dtype), "vocab", None)


def _in_chunks(x_ND: Array, targets_N: Array, weights_N: Array) -> tuple[Array, Array, Array]:
    """Tokens in rows of CHUNK."""
    chunk = min(CHUNK, x_ND.shape[0])
    return _cut(x_ND, chunk), _cut(targets_N, chunk), _cut(weights_N, chunk)


def _cut(values: Array, size: int) -> Array:
    """(N, ...) to (N / size, size, ...), filled up with zeros: tokens of weight 0."""
    pad = -values.shape[0] % size
    values = jnp.pad(values, [(0, pad)] + [(0, 0)] * (values.ndim - 1))
    return values.reshape(-1, size, *values.shape[1:])


def _logits(x_ND: Array, kernel_VD: Array, bias_V: Array | None) -> Array:
    products_NV = jnp.dot(x_ND, kernel_VD.T)
    return products_NV if bias_V is None else products_NV.astype(jnp.float32) + bias_V


def _tokens(smoothing: float, logits_NV: Array, targets_N: Array):
    """Loss, negative log-likelihood and hit of each token, and what their gradients need."""
    logits_NV = logits_NV.astype(jnp.float32)
    highest_N = logits_NV.max(-1)
    exp_NV = jnp.exp(logits_NV - highest_N[:, None])
    total_N = exp_NV.sum(-1)
    log_total_N = jnp.log(total_N) + highest_N
    right_N = jnp.take_along_axis(logits_NV, targets_N[:, None], axis=-1)[:, 0]
    nll_N = log_total_N - right_N
    loss_N = nll_N
    if smoothing:
        loss_N = (1 - smoothing) * nll_N + smoothing * (log_total_N - logits_NV.mean(-1))
    hits_N = (right_N >= highest_N).astype(jnp.float32)
    return (loss_N, nll_N, hits_N), exp_NV, total_N


def _chunk(smoothing: float, logits_NV: Array, targets_N: Array, weights_N: Array):
    """Sums of one chunk, and the two things that its gradient needs."""
    values, exp_NV, total_N = _tokens(smoothing, logits_NV, targets_N)
    sums = tuple(jnp.sum(value_N * weights_N) for value_N in values)
    return sums, exp_NV, total_N


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(
    smoothing: float,
    x_CND: Array,
    kernel_VD: Array,
    bias_V: Array | None,
    targets_CN: Array,
    weights_CN: Array,
):
    matrix_VD = _whole(kernel_VD, x_CND.dtype)

    def body(running, at):
        sums, _, _ = _chunk(smoothing, _logits(at[0], matrix_VD, bias_V), *at[1:])
        return jax.tree.map(jnp.add, running, sums), None

    zeros = (jnp.zeros((), jnp.float32),) * 3
    return jax.lax.scan(body, zeros, (x_CND, targets_CN, weights_CN))[0]


def _sums_forward(smoothing, x_CND, kernel_VD, bias_V, targets_CN, weights_CN):
    vocab_size, matrix_VD = kernel_VD.shape[0], _whole(kernel_VD, x_CND.dtype)

    def body(running, at):
        sums, dkernel_DV, dbias_V = running
        x_ND, targets_N, weights_N = at
        logits_NV = _logits(x_ND, matrix_VD, bias_V)
        new, exp_NV, total_N = _chunk(smoothing, logits_NV, targets_N, weights_N)
        # d loss / d logits = p - (1 - e) onehot - e / V
        d_NV = exp_NV * (weights_N / total_N)[:, None]
        right_NV = jnp.arange(vocab_size)[None] == targets_N[:, None]
        d_NV -= jnp.where(right_NV, (1 - smoothing) * weights_N[:, None], 0)
        if smoothing:
            d_NV -= (smoothing / vocab_size) * weights_N[:, None]
        if bias_V is not None:
            dbias_V += d_NV.sum(0)
        d_NV = d_NV.astype(x_ND.dtype)
        # Wide matrices last: XLA's CPU backend takes half as long again for (V, D).
        dkernel_DV += jnp.dot(x_ND.T, d_NV, preferred_element_type=jnp.float32)
        sums = jax.tree.map(jnp.add, sums, new)
        return (sums, dkernel_DV, dbias_V), jnp.dot(d_NV, matrix_VD)

    zeros = (jnp.zeros((), jnp.float32),) * 3
    no_dbias = None if bias_V is None else jnp.zeros_like(bias_V)
    zeros_DV = constrain(jnp.zeros(kernel_VD.shape[::-1], jnp.float32), None, "vocab")
    start = (zeros, zeros_DV, no_dbias)
    grads, dx_CND = jax.lax.scan(body, start, (x_CND, targets_CN, weights_CN))
    sums, dkernel_DV, dbias_V = grads
    return sums, (dx_CND, dkernel_DV.T.astype(kernel_VD.dtype), dbias_V)


def _sums_backward(smoothing, kept, grads):
    dx_CND, dkernel_VD, dbias_V = kept
    dloss = grads[0]
    scaled = [(dloss * grad).astype(grad.dtype) for grad in (dx_CND, dkernel_VD)]
    return *scaled, None if dbias_V is None else dloss * dbias_V, None, None


_sums.defvjp(_sums_forward, _sums_backward)


class Output(NamedTuple):
    """What turns features into logits: a matrix, or None where they are, and a bias or None."""

    kernel_VD: Array | None
    bias_V: Array | None = None


def output_of(module: Any) -> Output:
    """The output of a model, inside its apply."""
    return Output(module.output_layer(), module.output_bias())


def token_features(
    model: Any, variables: Any, inputs: tuple, key: Array, train: bool
) -> tuple[Array, Output, Any]:
    """What the output layer sees, that layer, and what the model sows under 'penalties' in
    training: (x_BTD, output, penalties).

    Args:
        inputs: arguments of model.features.
        key: for dropout.
    """

    def features_and_output(module: Any) -> tuple[Array, Output]:
        return module.features(*inputs, train=train), output_of(module)

    rngs, mutable = ({"dropout": key}, ["penalties"]) if train else (None, [])
    (x_BTD, output), sown = model.apply(
        variables, method=features_and_output, rngs=rngs, mutable=mutable
    )
    return x_BTD, output, sown


def token_sums(
    model: Any,
    variables: Any,
    inputs: tuple,
    batch: dict,
    key: Array,
    train: bool,
    label_smoothing: float,
) -> dict[str, tuple[Array, Array]]:
    """Sums of "loss", "nll" and "accuracy" over the predicted tokens of a batch.

    In training "loss" has in it what the model sows under 'penalties', (B, T), and their sum
    stands beside it as "penalty".

    Args:
        batch: has "targets" and "weights", (B, T).
        inputs, key: of token_features.
    """
    x_BTD, output, sown = token_features(model, variables, inputs, key, train)
    sums = output_sums(x_BTD, output, batch, label_smoothing)
    if sown:
        penalty_BT = jax.tree.reduce(jnp.add, sown)
        weights_BT, (loss, total) = batch["weights"], sums["loss"]
        penalty = jnp.where(weights_BT > 0, penalty_BT * weights_BT, 0).sum()
        sums |= {"loss": (loss + penalty, total), "penalty": (penalty, total)}
    return sums


def output_sums(
    x_BTD: Array, output: Output, batch: dict, label_smoothing: float
) -> dict[str, tuple[Array, Array]]:
    """The same from what the output layer sees and that layer."""
    weights_N = batch["weights"].reshape(-1)
    sums = cross_entropy(
        x_BTD.reshape(-1, x_BTD.shape[-1]),
        output.kernel_VD,
        batch["targets"].reshape(-1),
        weights_N,
        label_smoothing,
        output.bias_V,
    )
    total = weights_N.sum()
    return {
        "loss": (sums["loss"], total),  # nats per token
        "nll": (sums["nll"], total),
        "accuracy": (sums["hits"], total),
    }


def batch_nll(x_BTD: Array, output: Output, batch: dict) -> Array:
    """token_nll of a batch, (B, T)."""
    targets_N, weights_N = (batch[name].reshape(-1) for name in ("targets", "weights"))
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    nll_N = token_nll(x_ND, output.kernel_VD, targets_N, weights_N, output.bias_V)
    return nll_N.reshape(batch["targets"].shape)
