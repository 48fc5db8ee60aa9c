"""Every model on meshes: the numbers of one device, arrays and work in shares, and the rules."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from family_cases import ENCODERS
from jax.sharding import PartitionSpec
from model_cases import LANGUAGE_MODELS, RECURRENT, SEQ2SEQ, VOCAB, sources, tokens
from parallel_cases import ROWS, TinyTranslation, alone, assert_close, programs, run

import models
import trees
from benchmarks import memory_options
from benchmarks.ours import MESH
from benchmarks.workloads import Workload
from configs import base, base_families, classification, elmo, memory_network
from errors import ConfigError
from models import layers
from training import axis_rules, parallel
from training.axis_rules import AxisRules

BERT = {**ENCODERS["bert"], "num_layers": 1}
BLOCKS = {
    **{f"lm {name}": dict(block) for name, block in LANGUAGE_MODELS.items()},
    **{f"seq2seq {name}": dict(block) for name, block in SEQ2SEQ.items()},
    **{f"encoder {name}": block for name, block in ENCODERS.items()},
    "elmo": {"name": "elmo", "embedding_size": 8, "hidden_size": 16},
    "elmo characters": {
        "name": "elmo",
        "embedding": "characters",
        "tie_embeddings": False,
        "embedding_size": 8,
        "hidden_size": 16,
    },
    "classifier": {"name": "classifier", "inner": BERT},
    "classifier lstm": {"name": "classifier", "inner": {"name": "recurrent_lm", **RECURRENT}},
}
for block in BLOCKS.values():
    block.update({"remat_chunk": 0} if "remat_chunk" in block else {})  # a mesh refuses it


def strategy_of(shape: tuple[int, int, int], **rules: Any) -> parallel.MeshStrategy:
    block = {**MESH, "num_devices": int(np.prod(shape)), "mesh": shape, "rules": rules}
    found = parallel.build_strategy(block)
    assert isinstance(found, parallel.MeshStrategy)
    return found


# ------------------------------------------------------------------ the numbers of one device


def inputs_of(model: Any) -> tuple[np.ndarray, ...]:
    """Arguments of the model's call, of the kind that it takes."""
    examples = models.example_inputs(model)
    if examples[0].ndim == 3:  # characters of words, or options of a classifier
        inner = examples[0].shape[1] if model.kind == "classifier" else 6
        return (tokens(ROWS * inner * 5, 1).reshape(ROWS, inner, 5),)
    rows = (tokens(ROWS, 7), np.concatenate([sources(ROWS // 2)] * 2))
    return rows[:1] if len(examples) == 1 else rows[::-1]


def gradient_step(name: str, shape: tuple[int, int, int] | None) -> Any:
    """(parameters after a step, loss), the square of all that a model says, from any parameters
    but the first, which are zeros in places. Shape None: without a mesh and its rules."""
    model, strategy = models.build(BLOCKS[name], VOCAB), strategy_of(shape or (1, 1, 1))

    def init() -> Any:
        boxed = models.init_boxed(model, jax.random.key(0))["params"]
        return jax.tree.map(lambda x: x + 0.01, boxed)

    def step(params: Any, inputs: Any, key: Any, axis_name: None) -> tuple[Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            found = jax.tree.leaves(model.apply({"params": params}, *inputs))
            scored = [x for x in found if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum(jnp.square(x.clip(-5, 5)).mean() for x in scored)

        value, grads = jax.value_and_grad(loss)(params)
        return optax.apply_updates(params, jax.tree.map(lambda g: -0.1 * g, grads)), value

    params = strategy.init(init)
    inputs = strategy.put(inputs_of(model))
    if shape is None:
        return jax.device_get(jax.jit(step, static_argnums=(2, 3))(params, inputs, None, None))
    return jax.device_get(strategy.train_step(step)(params, inputs, None))


REPRESENTATIVES = {
    "encoder alibi": (2, 2, 2),
    "lm gru": (1, 8, 1),
}
FAMILIES = {
    *REPRESENTATIVES,
    "encoder bert",
    "lm transformer-rotary-grouped",
    "elmo",
    "seq2seq transformer-t5",
    "seq2seq convolutional-attention",
    "seq2seq lstm-attention",
}
WRONG = {("seq2seq convolutional-attention", (2, 2, 2))}  # and refused: training/config_rules.py
ALL = [pytest.param(name, shape) for name, shape in REPRESENTATIVES.items()]
ALL += [
    pytest.param(name, shape, marks=pytest.mark.heavy)
    for name in BLOCKS
    for shape in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4))
    if (name, shape) not in WRONG
    and REPRESENTATIVES.get(name) != shape
    and (name in FAMILIES or shape == (2, 2, 2))
]


@pytest.mark.parametrize(("name", "shape"), ALL)
def test_every_family_has_the_numbers_of_one_device(name, shape):
    found = gradient_step(name, shape)
    assert np.isfinite(found[1])
    assert found[1] > 0
    assert_close(found, gradient_step(name, None), 2e-5)


def test_the_rows_of_a_batch_are_cut_into_micro_batches_that_all_devices_share():
    expected = alone("lstm-attention")
    found = run("lstm-attention", accumulate=2, strategy="mesh", num_devices=4, mesh=(2, 2, 1))
    assert_close(found, expected, 2e-6)


@pytest.mark.parametrize(
    ("name", "mesh"),
    [("transformer", (2, 2, 1)), pytest.param("transformer", (1, 4, 2), marks=pytest.mark.heavy)],
)
def test_rows_cut_by_place_have_the_numbers_of_one_device(name, mesh):
    """Six places of a source are cut by two, and not by four; seven of a target are not."""
    options = {"strategy": "mesh", "num_devices": int(np.prod(mesh)), "mesh": mesh}
    found = run(name, **options, rules=(("batch", ("data",)), ("length", ("fsdp",))))
    assert_close(found, alone(name), 2e-6)


def test_dropout_is_the_same_where_each_device_draws_its_part():
    mesh, rules = strategy_of((4, 1, 2)).mesh, AxisRules().pairs()
    shape, key = (3, 8, 5), jax.random.key(3)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        found = jax.jit(lambda: layers.hashed_bits(key, shape))()
    assert (found == layers.hashed_bits(key, shape)).all()


# ------------------------------------------------------------------ arrays and work in shares

PRESETS = {name: block for name, block in base.MODELS.items() if name.endswith("-small")}
PUBLISHED = base_families.family("gpt2", "bert")
PRESETS |= {name: PUBLISHED[name] | {"num_layers": 1} for name in ("gpt2-small", "bert-base")}
PRESETS |= {
    name: file.get_config("").model.to_dict()
    for name, file in (
        ("elmo", elmo),
        ("memory", memory_network),
        ("classifier", classification),
    )
}
SHARES = {(8, 1, 1): (1, 1), (1, 8, 1): (7.4, 8), (1, 2, 4): (6.1, 8)}


@pytest.mark.parametrize("name", PRESETS)
def test_a_device_holds_its_share_of_the_parameters(name):
    model = models.build(PRESETS[name], 8192)
    for shape, (low, high) in SHARES.items():
        arrays = jax.tree.leaves(
            strategy_of(shape).abstract(
                lambda: models.init_boxed(model, jax.random.key(0))["params"]
            )
        )
        whole = sum(x.size for x in arrays)
        share = sum(np.prod(x.sharding.shard_shape(x.shape)) for x in arrays)
        print(f"{name} {shape}: {whole / share:.2f}")
        assert low <= whole / share <= high


def test_the_state_that_a_step_returns_is_still_in_shares():
    options = {"strategy": "mesh", "num_devices": 8, "mesh": (2, 2, 2)}
    strategy, first, shardings, step, _ = programs("transformer", 0.0, 1, tuple(options.items()))
    state = jax.device_put(first, shardings, may_alias=False)
    state, _ = step(state, strategy.put(TinyTranslation().batch(0)), jax.random.key(1))
    for part in (state.params, state.ema_params):
        leaves = jax.tree.leaves(part)
        for device in jax.devices()[:8]:
            held = sum(
                shard.data.nbytes
                for leaf in leaves
                for shard in leaf.addressable_shards
                if shard.device == device
            )
            assert held < sum(leaf.nbytes for leaf in leaves) / 3


def flops(block: dict, shape: tuple[int, int, int], accumulate: int, **rules: Any) -> float:
    """What one device computes in a step on 16 rows of 128 tokens; the body of a loop once."""
    workload = Workload("", block, VOCAB, ROWS, 0, 128)
    return memory_options.compiled(workload, shape, accumulate, rules).cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [("recurrent_lm", 2), pytest.param("transformer_lm", 1, marks=pytest.mark.heavy)],
)
def test_devices_share_the_work(name, accumulate):
    """Also that of the output layer, chunk by chunk, and of each micro-batch."""
    sizes = {"d_model": 16, "d_ff": 64} if "transformer" in name else RECURRENT
    one, eight = (
        flops({"name": name, **sizes}, shape, accumulate) for shape in ((1, 1, 1), (8, 1, 1))
    )
    print(f"{one / eight:.2f} times less for each of eight")
    assert one / eight > 7


# ------------------------------------------------------------------ the rules

BAD_RULES = [
    ({"heds": "tensor"}, "rules: Unknown option of rules: 'heds'. Did you mean 'heads'? Known: ba"),
    ({"embed": "fdsp"}, "rules.embed[0]: Unknown value: 'fdsp'. Did you mean 'fsdp'? Known: data"),
    ({"embed": ("data", "data")}, "spreads 'embed' and 'embed' of an array over 'data'"),
    ({"length": "fsdp"}, "spreads 'batch' and 'length' of activations over 'fsdp'"),
    ({"residual": ["tensor", "data"]}, "spreads 'batch' and 'residual' of activations over 'data'"),
    ({"embed": 3}, "config.parallel.rules.embed must be a list, got 3."),
]


@pytest.mark.parametrize(("rules", "sentence"), BAD_RULES, ids=str)
def test_rules_that_cannot_be_are_refused(rules, sentence):
    with pytest.raises(ConfigError) as caught:
        axis_rules.complete(rules)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_axes_of_one_parameter_on_one_axis_of_the_mesh_are_refused():
    model = models.build(SEQ2SEQ["transformer"], VOCAB)
    strategy = strategy_of((1, 2, 1), mlp=("fsdp",))
    with pytest.raises(ConfigError) as caught:
        strategy.abstract(lambda: models.init_boxed(model, jax.random.key(0))["params"])
    assert str(caught.value) == (
        "config.parallel.rules spreads 'embed' and 'mlp' of decoder/layers_0/feed_forward/hidden/"
        "kernel over 'fsdp': it has one axis for each, so give one of them another."
    )


def test_rules_are_set_by_name_and_completed():
    found = axis_rules.complete({"batch": "data", "length": ["fsdp"], "mlp": "", "heads": None})
    assert found["embed"] == ("fsdp",)
    assert (found["batch"], found["length"]) == (("data",), ("fsdp",))
    assert found["mlp"] == found["heads"] == ()
    rules = AxisRules(**found)
    mesh = {"data": 2, "fsdp": 4, "tensor": 2}
    for names, shape, expected in (
        (("batch", "length", "mlp"), (4, 8, 6), (("data",), ("fsdp",), None)),
        (("vocab", "embed"), (6, 8), (("tensor",), ("fsdp",))),
        (("vocab", "embed"), (7, 6), (None, None)),  # which the devices do not divide
        ((("batch", "length"),), (16,), (("data", "fsdp"),)),
    ):
        assert trees.mesh_axes(names, shape, rules.pairs(), mesh) == PartitionSpec(*expected)


def test_every_axis_that_a_model_names_has_a_rule():
    known, named = {name for name, _ in AxisRules().pairs()}, set()
    for name in (*FAMILIES, "seq2seq lstm-attention-copy", "classifier"):
        model = models.build(BLOCKS[name], VOCAB)
        boxed = jax.eval_shape(
            lambda model=model: models.init_boxed(model, jax.random.key(0))["params"]
        )
        for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names")):
            named |= set(getattr(leaf, "names", ()))
    assert named - {None} <= known
    assert known - named == {"batch", "length", "residual"}  # of activations
