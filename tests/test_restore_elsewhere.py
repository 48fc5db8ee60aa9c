"""A run goes on, on other devices than those on which it was saved: any number, pmap or mesh."""

import jax
import numpy as np
import pytest
from checkpoint_cases import FINGERPRINT, assert_same_bits
from parallel_cases import alone, assert_close, parts, run

from training.checkpoints import Checkpointer

NAME = "transformer"
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4), (1, 2, 1)]
PLACES = {f"pmap {n}": {"num_devices": n} for n in (1, 2, 4, 8)}
PLACES |= {
    f"mesh {shape}": {"strategy": "mesh", "num_devices": int(np.prod(shape)), "mesh": shape}
    for shape in MESHES
}


HOST = "mesh (2, 2, 2), moments on the host"
PLACES[HOST] = {**PLACES["mesh (2, 2, 2)"], "offload": "moments"}
LIGHT = ("pmap 1", "pmap 8", "mesh (2, 2, 2)", "mesh (1, 8, 1)", HOST)


@pytest.mark.parametrize("places", [LIGHT, pytest.param(tuple(PLACES), marks=pytest.mark.heavy)])
def test_what_is_saved_anywhere_is_restored_anywhere_bit_for_bit(tmp_path, places):
    targets, tried = {}, 0
    for place in places:
        strategy, init, *_ = parts(NAME, options=tuple(PLACES[place].items()), optimizer="adamw")
        targets[place] = strategy.abstract(init)
    shapes = targets["pmap 1"]
    random = np.random.default_rng(0)
    state = jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), shapes)
    for step, (place, mine) in enumerate(targets.items()):
        saved = jax.device_put(state, jax.tree.map(lambda x: x.sharding, mine))
        with Checkpointer(tmp_path / place, 2, FINGERPRINT) as checkpointer:
            checkpointer.save(step, saved, {})
            for target in targets.values():
                found = checkpointer.restore(target)
                assert found is not None
                assert_same_bits(found[1], state)
                for leaf, wanted in zip(*map(jax.tree.leaves, (found[1], target)), strict=True):
                    assert leaf.sharding == wanted.sharding
                tried += 1
    print(f"{tried} pairs of places")
    assert tried == len(places) ** 2


HEAVY = PLACES.keys() - {"mesh (2, 2, 2)"}


@pytest.mark.parametrize(
    "place",
    [pytest.param(name, marks=pytest.mark.heavy if name in HEAVY else ()) for name in PLACES],
)
@pytest.mark.parametrize(
    "start", ["pmap 2", pytest.param("mesh (2, 2, 2)", marks=pytest.mark.heavy)]
)
def test_a_run_that_goes_on_elsewhere_has_the_losses_of_one_that_stayed(tmp_path, start, place):
    left = run(NAME, steps=1, **PLACES[start])
    with Checkpointer(tmp_path, 2, FINGERPRINT) as checkpointer:
        checkpointer.save(1, left["state"], {})

        def begin(shardings):
            target = jax.tree.map(
                lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
                left["state"],
                shardings,
            )
            return checkpointer.restore(target)[1]

        found = run(NAME, steps=2, begin=begin, **PLACES[place])
    whole = alone(NAME)
    expected = {**whole, "records": whole["records"][1:]}
    assert_close(found, expected, 2e-6)
