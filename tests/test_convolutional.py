"""ConvS2S and the convolutional encoder against loops over places and neighbours in NumPy."""

import jax
import numpy as np
import pytest
from model_cases import RECURRENT, SEQ2SEQ, make, sources, tokens

from models.convolutional.layers import NormedDense


def dense(p, x):
    """W x + b with W = g v / |v|."""
    kernel = p["kernel"]
    if "scale" in p:
        kernel = kernel * p["scale"] / np.sqrt((kernel**2).sum(0))
    return x @ kernel + p["bias"]


def glu(x):
    a, b = np.split(x, 2)
    return a / (1 + np.exp(-b))


def neighbours(x, t, before, after):
    """x[t - before] ... x[t + after] in one vector; zeros beyond the ends."""
    places = range(t - before, t + after + 1)
    return np.concatenate([x[i] if 0 <= i < len(x) else np.zeros_like(x[0]) for i in places])


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def conv_s2s(model, p, source, inputs):
    """Logits of one pair without padding (Gehring et al. 2017, section 3)."""
    half, k, d = np.sqrt(0.5), model.kernel_size, model.embedding_size

    def embedded(ids, positions):
        places = np.minimum(np.arange(len(ids)), model.max_positions - 1)
        both = p["embed"]["embedding"][ids] + p[positions]["embedding"][places]
        return both * np.sqrt(d) * half

    e = embedded(source, "source_positions")
    x = dense(p["encoder_in"], e)
    for n in range(model.num_encoder_layers):
        conv = p[f"encoder_{n}"]["NormedDense_0"]
        near = [neighbours(x, t, (k - 1) // 2, k // 2) for t in range(len(x))]
        x = np.array([(x[t] + glu(dense(conv, near[t]))) * half for t in range(len(x))])
    z = dense(p["encoder_out"], x)
    values = (z + e) * half

    g = embedded(inputs, "target_positions")
    x = dense(p["decoder_in"], g)
    for n in range(model.num_decoder_layers):
        layer, new = p[f"decoder_{n}"], []
        for t in range(len(x)):
            h = glu(dense(layer["convolution"], neighbours(x, t, k - 1, 0)))
            weights = softmax(z @ ((dense(layer["query"], h) + g[t]) * half))
            context = np.sqrt(len(source)) * (weights @ values)
            new.append(((h + dense(layer["out"], context)) * half + x[t]) * half)
        x = np.array(new)
    return dense(p["decoder_out"], x) @ p["embed"]["embedding"].T


@pytest.mark.parametrize(("kernel_size", "weight_norm"), [(3, True), (4, True), (1, False)])
def test_conv_s2s_equals_a_loop_over_its_equations(kernel_size, weight_norm):
    block = SEQ2SEQ["convolutional-attention"] | {"hidden_size": 14, "max_positions": 5}
    options = {"kernel_size": kernel_size, "weight_norm": weight_norm, "dropout_rate": 0.0}
    model, variables = make({**block, **options})
    source_BS, inputs_BT = sources(), tokens(3, 7)
    found = jax.jit(model.apply)(variables, source_BS, inputs_BT)
    params = jax.tree.map(np.asarray, variables["params"])
    for b in range(3):
        expected = conv_s2s(model, params, source_BS[b][source_BS[b] != 0], inputs_BT[b])
        np.testing.assert_allclose(found[b], expected, atol=2e-4, rtol=1e-4)


def test_the_convolutional_encoder_equals_a_loop():
    """CNN-a and CNN-c of Gehring et al. 2016, the latter half as deep."""
    block = {"name": "recurrent_seq2seq", "encoder": "convolutional", **RECURRENT}
    model, variables = make({**block, "num_encoder_layers": 4, "max_positions": 4})
    source_BS = sources()
    encode = jax.jit(lambda v: model.apply(v, source_BS, method="encode"))
    found, params = encode(variables), jax.tree.map(np.asarray, variables["params"])
    p, size = params["convolutions"], RECURRENT["embedding_size"]
    for b in range(3):
        ids = source_BS[b][source_BS[b] != 0]
        places = np.minimum(np.arange(len(ids)), 3)
        e = params["embed"]["embedding"][ids] + p["positions"]["embedding"][places]
        ends = {}
        for stack, depth in (("a", 4), ("c", 2)):
            x = dense(p["Dense_0"], e * np.sqrt(size))
            for n in range(depth):
                near = [neighbours(x, t, 1, 1) for t in range(len(x))]
                conv = p[f"{stack}_{n}"]
                x = np.array([np.tanh(x[t] + dense(conv, near[t])) for t in range(len(x))])
            ends[stack] = x
        np.testing.assert_allclose(found["keys"][b, : len(ids)], ends["a"], atol=1e-5)
        np.testing.assert_allclose(found["x"][b, : len(ids)], ends["c"], atol=1e-5)
        np.testing.assert_allclose(found["last"][b], ends["c"].mean(0), atol=1e-5)
        assert (found["x"][b, len(ids) :] == 0).all()


def test_weight_norm_changes_the_parameters_and_not_the_product():
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    normed, plain = NormedDense(4), NormedDense(4, weight_norm=False)
    variables = jax.tree.map(np.asarray, normed.init(jax.random.key(0), x))
    params = {name: leaf.value for name, leaf in variables["params"].items()}
    without = {"kernel": params["kernel"], "bias": params["bias"]}
    start = normed.apply({"params": params}, x)
    np.testing.assert_allclose(start, plain.apply({"params": without}, x), atol=1e-6)
    longer = params | {"kernel": 3 * params["kernel"]}  # only the direction counts
    np.testing.assert_allclose(normed.apply({"params": longer}, x), start, atol=1e-5)
