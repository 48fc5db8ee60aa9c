"""Programs as text: loops, products and collectives of known ones."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from experiments.planning.programs import read_program


def test_a_program_counts_loops_as_often_as_they_run_and_knows_its_collectives():
    mesh = jax.make_mesh((4, 2), ("x", "y"), (jax.sharding.AxisType.Auto,) * 2)
    rows, columns = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("x", None), (None, "y"))
    )

    @functools.partial(jax.jit, in_shardings=(rows, columns), out_shardings=None)
    def program(x_BD, w_DD):
        def body(x_BD, _):
            return jnp.dot(jnp.tanh(x_BD), w_DD), None

        return jax.lax.scan(body, x_BD, None, length=5)[0].sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((16, 32), (32, 32))]
    compiled = program.lower(*shapes).compile()
    found = read_program(compiled.as_text())
    assert found.flops == 5 * 2 * 16 * 32 * 32 / 8
    assert found.flops_once == 2 * 16 * 32 * 32 / 8
    assert 5 in found.loops
    gathered = [one for one in found.collectives if one.kind == "all-gather"]
    assert sum(one.number for one in gathered) >= 5
    assert {one.group for one in gathered} == {2}
    assert {one.group for one in found.collectives if one.kind == "all-reduce"} <= {2, 4, 8}


TPU_TEXT = """
%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[]{:T(128)}, f32[8,4]{1,0}) parameter(0)
  %a = bf16[3,5,8,4]{3,2,1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %b = bf16[3,5,4,6]{3,2,1,0} get-tuple-element(%p), index=1
  %c = f32[3,5,8,6]{3,2,1,0} convolution(%a, %b), window={size=3x5 stride=2x4 lhs_dilate=3x5}, \
dim_labels=01bf_01io->01bf, backend_config={"estimated_cycles":"10"}
  %r = f32[4,8]{1,0} reduce-scatter(%c), channel_id=3, replica_groups=[2,8]<=[16], \
dimensions={0}, to_apply=%add
}

%limit (q: (s32[], f32[8,4])) -> pred[] {
  %k = s32[]{:T(128)} constant(7)
  %q = (s32[]{:T(128)}, f32[8,4]{1,0}) parameter(0)
}

%fused (y: f32[8,4]) -> f32[2] {
  %y = f32[8,4]{1,0} parameter(0)
  %h = f32[2]{0} all-gather(%y), channel_id=9, replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %f = f32[2]{0} fusion(%x), kind=kCustom, calls=%fused
  %w = (s32[], f32[8,4]{1,0}) while(%x), condition=%limit, body=%body
  %g = f32[2]{0} all-gather(%x), channel_id=9, replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}
  %t = (f32[6]{0}, f32[2]{0}) all-reduce(%x, %x), channel_id=1, replica_groups={{0,1,2,3}}
  %u = f32[5]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}
  %v = f32[5]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), channel_id=10, replica_groups={{0,1},{2,3}}
  %o = f32[100]{0} all-reduce(%x), channel_id=11, replica_groups={{0},{1}}
}
"""


def test_the_text_of_a_tpu_program_is_read():
    found = read_program(TPU_TEXT)
    batched = 3 * 5 * 2 * 8 * 4 * 6  # a batch of 15 products as one dilated convolution
    assert (found.flops, found.flops_once, found.loops) == (7 * batched, batched, (7,))
    assert (found.cycles, found.cycles_once) == (70, 10)
    sent = {(one.kind, one.group): (one.number, one.sent) for one in found.collectives}
    assert sent == {
        ("reduce-scatter", 8): (7, 7 * 4 * 4 * 8 * 8 * 7 / 8),
        ("all-gather", 8): (1, 4 * 2 * 7 / 8),
        ("all-gather", 2): (1, 4 * 8 / 2),
        ("all-reduce", 4): (3, 4 * (6 + 2 + 5 + 5) * 2 * 3 / 4),
    }


GROUPS = {
    "all-reduce(%x), replica_groups=[2,4]<=[8]": (0, 1, 2, 3),
    "all-reduce(%x), replica_groups=[4,2]<=[2,4]T(1,0)": (0, 4),
    "all-reduce(%x), replica_groups=[2,4]<=[2,2,2]T(1,0,2), channel_id=7": (0, 1, 4, 5),
    "all-reduce(%x), replica_groups={{0,2},{1,3}}": (0, 2),
    "all-reduce(%x), replica_groups=mesh['a'=2,'b'=4] {'a'}": (0, 4),
    "all-reduce(%x), replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}": (0, 1, 4, 5),
    "collective-permute(%x), source_target_pairs={{0,1},{1,2},{2,0}}": (2, 0),
}
STARTED = {
    "((f32[2]{0}, bf16[3]{0}), (f32[8]{0}, bf16[12]{0})) all-gather-start": 4 * 8 + 2 * 12,
    "(c64[2]{0}, c64[8]{0}) all-gather-start": 64,
    "(u64[2]{0}, u64[8]{0}) all-gather-start": 64,
    "(f8e4m3fn[2]{0}, f8e4m3fn[8]{0}) all-gather-start": 8,
    "((f32[8]{0}, f32[4]{0}), (f32[2]{0}, f32[1]{0})) reduce-scatter-start": 4 * 12,
    "f32[5]{0} all-reduce-start": 20,
    "(pred[8]{0}, pred[8]{0}, u32[], u32[]) collective-permute-start": 8,
}


def only(line):
    """The one collective of a program of one line."""
    text = f"ENTRY %main (x: f32[2]) -> f32[2] {{\n  %c = {line}\n}}\n"
    (found,) = read_program(text).collectives
    return found


def test_members_and_bytes_of_collectives_are_read():
    for line, members in GROUPS.items():
        assert only(f"f32[2]{{0}} {line}").members == members, line
    for line, size in STARTED.items():
        among = "source_target_pairs={{0,1}}" if "permute" in line else "replica_groups=[1,4]<=[4]"
        assert only(f"{line}(%x), {among}").bytes == size, line
