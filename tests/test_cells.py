"""Recurrent cells against NumPy loops and PyTorch, and what is random in them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_cases import OPTIONS, B, D, H, T, loop, make

import models
from errors import ConfigError
from models.recurrent.cells import CELLS
from models.recurrent.layer import BidirectionalLayer, RecurrentLayer, RecurrentStack
from models.recurrent.options import CellOptions

VALID_TB = np.arange(T)[:, None] < np.array([T, T - 2, T - 1])
RESETS_TB = np.zeros((T, B), bool)
RESETS_TB[2, 0] = RESETS_TB[1, 2] = True


def first_carry(name):
    cell = CELLS[CellOptions(**OPTIONS[name]).cell]
    h_BH = jax.random.normal(jax.random.key(3), (B, H))
    carry = cell.start(h_BH)
    assert carry[-1] is h_BH
    assert all((state == 0).all() for state in carry[:-1])
    return jax.tree.map(lambda state: state + 0.1, carry)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_layer_equals_a_loop_over_its_equations(name):
    layer, params, x_TBD = make(name)
    carry = first_carry(name)
    found = jax.jit(layer.apply)(
        {"params": params}, x_TBD, VALID_TB, resets_TB=RESETS_TB, carry=carry
    )
    expected = loop(name, params, x_TBD, carry, VALID_TB, RESETS_TB)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm-norm-peepholes"])
def test_a_reverse_layer_is_a_layer_over_the_reversed_sequence(name):
    layer, params, x_TBD = make(name, reverse=True)
    carry = first_carry(name)
    (*_, last), outputs = jax.jit(layer.apply)({"params": params}, x_TBD, VALID_TB, carry=carry)
    (*_, end), expected = loop(name, params, x_TBD[::-1], carry, VALID_TB[::-1])
    np.testing.assert_allclose(last, end, atol=1e-5)
    np.testing.assert_allclose(outputs, expected[::-1], atol=1e-5)


def test_residual_stacks_add_inputs_to_outputs_above_the_first_layer():
    x_TBD = jax.random.normal(jax.random.key(0), (T, B, D))
    stack = RecurrentStack(H, 3, CellOptions(cell="rnn"), residual=True)
    params = nn.meta.unbox(stack.init(jax.random.key(1), x_TBD, False))["params"]
    expected = x_TBD
    for i in range(3):
        _, out = loop("rnn", params[f"layers_{i}"], expected, [np.zeros((B, H))])
        expected = out + expected if i else out
    _, found = stack.apply({"params": params}, x_TBD, False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_directions_lie_side_by_side():
    x_TBD = jax.random.normal(jax.random.key(0), (T, B, D))
    layer = BidirectionalLayer(H, CellOptions(cell="rnn"))
    params = nn.meta.unbox(layer.init(jax.random.key(1), x_TBD, None))["params"]
    _, found = layer.apply({"params": params}, x_TBD, None)
    zeros = [np.zeros((B, H))]
    _, forward = loop("rnn", params["forward"], x_TBD, zeros)
    _, backward = loop("rnn", params["backward"], x_TBD[::-1], zeros)
    np.testing.assert_allclose(found, np.concatenate([forward, backward[::-1]], -1), atol=1e-5)


TORCH = {
    "rnn": ("RNN", {}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
}


def to_torch(name, params, module):
    """Our parameters in PyTorch's names: the gates stand in the same order."""
    unit = jax.tree.map(np.asarray, params["unit"])
    bias_hh = np.zeros_like(unit["input"]["bias"])
    if "recurrent_bias" in unit:
        bias_hh[-H:] = unit["recurrent_bias"]
    values = {
        "weight_ih_l0": unit["input"]["kernel"].T,
        "weight_hh_l0": unit["recurrent"].T,
        "bias_ih_l0": unit["input"]["bias"],
        "bias_hh_l0": bias_hh,
    }
    return {key: module.weight_hh_l0.new_tensor(value) for key, value in values.items()}


def from_torch(module):
    """PyTorch's parameters as ours; its two biases are one, but for the GRU's candidate."""
    own = {key.removesuffix("_l0"): value.detach().numpy() for key, value in named(module).items()}
    bias = own["bias_ih"] + own["bias_hh"]
    unit = {"recurrent": own["weight_hh"].T, "input": {"kernel": own["weight_ih"].T, "bias": bias}}
    if len(bias) == 3 * H:
        unit["recurrent_bias"] = own["bias_hh"][-H:]
        bias[-H:] = own["bias_ih"][-H:]
    return {"unit": unit}


def named(module):
    return dict(module.named_parameters())


@pytest.mark.interop
@pytest.mark.parametrize("weights", ["ours", "theirs"])
@pytest.mark.parametrize("name", TORCH)
def test_values_and_gradients_equal_those_of_pytorch(name, weights):
    import torch

    torch.manual_seed(0)
    kind, extra = TORCH[name]
    bias = {"recurrent_bias": True} if name == "gru" else {}
    layer = RecurrentLayer(H, CellOptions(**OPTIONS[name], **bias))
    module = getattr(torch.nn, kind)(D, H, **extra)
    x_TBD = np.random.default_rng(0).normal(size=(T, B, D)).astype(np.float32)
    scale_TBH = np.random.default_rng(1).normal(size=(T, B, H)).astype(np.float32)
    if weights == "ours":
        params = nn.meta.unbox(layer.init(jax.random.key(0), x_TBD))["params"]
        params = jax.tree.map(lambda leaf: leaf + 0.1, params)
        module.load_state_dict(to_torch(name, params, module))
    else:
        params = from_torch(module)

    def loss(params, x_TBD):
        outputs_TBH = layer.apply({"params": params}, x_TBD)[1]
        return (outputs_TBH * scale_TBH).sum(), outputs_TBH

    (_, found), (dparams, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        params, x_TBD
    )
    theirs_x = torch.tensor(x_TBD, requires_grad=True)
    outputs = module(theirs_x)[0]
    (outputs * torch.from_numpy(scale_TBH)).sum().backward()
    np.testing.assert_allclose(found, outputs.detach(), atol=1e-5)
    np.testing.assert_allclose(dx, theirs_x.grad, atol=1e-5)
    for key, expected in to_torch(name, dparams, module).items():
        grad = named(module)[key].grad.numpy()
        if key == "bias_hh_l0":  # of these only the GRU's candidate has a bias of its own
            grad, expected = (grad[-H:], expected[-H:]) if name == "gru" else (0.0, 0.0)
        np.testing.assert_allclose(grad, expected, atol=1e-5, rtol=1e-5)


def test_first_values():
    x_TBD = jnp.ones((T, B, D))
    for init, bias in (("orthogonal", 1.0), ("xavier_uniform", 0.5)):
        options = CellOptions(recurrent_init=init, forget_bias=bias)
        params = RecurrentLayer(H, options).init(jax.random.key(0), x_TBD)["params"]
        unit = nn.meta.unbox(params)["unit"]
        np.testing.assert_array_equal(
            unit["input"]["bias"].reshape(4, H), [[0] * H, [bias] * H, [0] * H, [0] * H]
        )
        blocks = np.asarray(unit["recurrent"]).reshape(H, 4, H).swapaxes(0, 1)
        products = blocks @ blocks.swapaxes(1, 2)
        assert np.allclose(products, np.eye(H), atol=1e-5) == (init == "orthogonal")
        assert np.abs(blocks).max() < (6 / (2 * H)) ** 0.5 or init == "orthogonal"
        assert np.abs(blocks[0] - blocks[1]).max() > 0.1


def test_zoneout_keeps_a_share_of_the_units_and_takes_the_expected_value_outside_training():
    layer, params, x_TBD = make("lstm-zoneout")
    carry = first_carry("lstm-zoneout")
    one = jax.jit(
        lambda key: layer.apply(
            {"params": params}, x_TBD[:1], None, True, None, carry, rngs={"dropout": key}
        )[0]
    )
    keys = jax.random.split(jax.random.key(5), 2000)
    drawn = jax.vmap(one)(keys)
    expected = layer.apply({"params": params}, x_TBD[:1], None, False, None, carry)[0]
    for states, old, mean in zip(drawn, carry, expected, strict=True):
        kept = np.asarray(states == old)
        assert abs(kept.mean() - 0.25) < 0.01
        new = (mean - 0.25 * old) / 0.75
        np.testing.assert_allclose(
            np.where(kept, new, states), np.broadcast_to(new, kept.shape), atol=1e-5
        )
        np.testing.assert_allclose(states.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(drawn[0][0], one(keys[0])[0], atol=1e-6)  # the key says it all
    same = np.asarray((drawn[0] == carry[0]) == (drawn[1] == carry[1]))
    assert abs(same.mean() - (0.75**2 + 0.25**2)) < 0.02, "c and h have masks of their own"


def test_variational_dropout_draws_one_mask_for_all_steps():
    rate, width = 0.4, 50
    options = CellOptions(cell="rnn", activation="relu", variational_dropout_rate=rate)
    layer, eye, none = RecurrentLayer(width, options), jnp.eye(width), jnp.zeros((width, width))

    def run(kernel, recurrent, x_TBD, h_BH, train=True):
        unit = {"input": {"kernel": kernel, "bias": jnp.zeros(width)}, "recurrent": recurrent}
        rngs = {"dropout": jax.random.key(0)}
        carry = (h_BH,)
        _, h_TBH = layer.apply(
            {"params": {"unit": unit}}, x_TBD, None, train, None, carry, rngs=rngs
        )
        return np.asarray(h_TBH)

    ones_TBH, zeros_TBH = jnp.ones((T, B, width)), jnp.zeros((T, B, width))
    of_inputs = run(eye, none, ones_TBH, zeros_TBH[0])
    of_state = run(none, eye, zeros_TBH, ones_TBH[0])
    for masks, factors in ((of_inputs, [1] * T), (of_state, range(1, T + 1))):
        kept = masks[0] > 0
        assert 0.1 < 1 - kept.mean() < 0.7
        assert (kept[0] != kept[1]).any(), "each row has its own mask"
        for mask, power in zip(masks, factors, strict=True):
            np.testing.assert_allclose(mask, kept / (1 - rate) ** power, rtol=1e-5)
    assert ((of_inputs[0] > 0) != (of_state[0] > 0)).any()
    assert (run(eye, none, ones_TBH, zeros_TBH[0], train=False) == 1).all()


BAD = [
    ({"cell": "lstn"}, "Did you mean 'lstm'?"),
    ({"cell": "gru", "peepholes": True}, "peepholes=True is for cell='lstm' only, got cell='gru'."),
    ({"cell": "rnn", "forget_bias": 0.5}, "forget_bias=0.5 is for cell='lstm' only"),
    ({"activation": "relu"}, "activation='relu' is for cell='rnn' only, got cell='lstm'."),
    ({"cell": "rnn", "activation": "gelu"}, "Known: relu, sigmoid, tanh."),
    ({"recurrent_bias": True}, "recurrent_bias=True is for cell='gru' only"),
    ({"recurrent_init": "zeros"}, "Known: orthogonal, xavier_uniform."),
    ({"zoneout_rate": 1.0}, "zoneout_rate must be a number"),
    ({"variational_dropout_rate": -0.1}, "variational_dropout_rate must be a number"),
    ({"remat_chunk": -1}, "remat_chunk must be a whole number"),
    ({"kernel": "cuda"}, "Known: cudnn, scan."),
    ({"kernel": "cudnn", "layer_norm": True}, "layer_norm=True needs kernel='scan'"),
    ({"kernel": "cudnn", "cell": "gru"}, "kernel='cudnn' is for cell='lstm' only"),
    ({"kernel": "cudnn"}, "kernel='cudnn' needs a GPU"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
@pytest.mark.parametrize("name", ["recurrent_lm", "recurrent_seq2seq"])
def test_a_wrong_option_is_one_line(name, options, message):
    with pytest.raises(ConfigError) as caught:
        models.build({"name": name, "hidden_size": 4, "embedding_size": 4, **options}, 9)
    assert str(caught.value).startswith("config.model.")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
