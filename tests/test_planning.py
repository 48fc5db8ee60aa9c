"""Plans: formulas against the compiler, stand-ins for data and devices, and the command."""

import functools

import jax
import pytest
from model_cases import LANGUAGE_MODELS, SEQ2SEQ, VOCAB

import models
import tasks
import train
from analysis import planning
from analysis.chips import CHIPS
from errors import ConfigError
from experiments import plan
from experiments.planning import compiler, formulas, stand_in, targets
from training.config_files import load_config
from training.parallel import build_strategy
from training.planned import on_devices


def settings_of(config, *overrides):
    return train.check(load_config(config, overrides))


def test_the_parts_of_every_kind_of_model_are_known():
    blocks = {block["name"]: block for block in (*LANGUAGE_MODELS.values(), *SEQ2SEQ.values())}
    for block in blocks.values():
        model = models.build(block, VOCAB)
        shapes = jax.eval_shape(lambda model=model: models.init(model, jax.random.key(0)))
        leaves = jax.tree_util.tree_leaves_with_path(shapes["params"])
        sizes = [(formulas.path_of(path), leaf.size) for path, leaf in leaves]
        parts = planning.by_part(sizes)
        assert sum(parts.values()) == models.num_parameters(shapes)
        assert parts["embedding"] > 0
        if "transformer" in block["name"]:
            assert not parts.get(planning.OTHERS)
            assert parts["attention"] > 0
            assert parts["feed-forward"] > 0
    print(f"{len(blocks)} models")


CONFIGS = ("bart", "bert", "elmo", "gpt", "t5", "translation", "synthetic", "classification")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_stand_in_has_the_fields_of_the_task(name, tmp_path):
    settings = settings_of(f"configs/{name}.py:smoke")
    real = tasks.build(settings["task"], 0, str(tmp_path))
    found, batch = stand_in.stand_in(settings), real.batch("train", 0)
    kinds = {name: (x.ndim, x.dtype) for name, x in batch.items()}
    assert {name: (x.ndim, x.dtype) for name, x in found.batch.items()} == kinds
    if found.rows_field == "sequences_per_batch":
        assert {n: x.shape for n, x in found.batch.items()} == {
            n: x.shape for n, x in batch.items()
        }
    assert stand_in.stand_in(settings, 77).task.vocab_size == 77 + len(real.tokenizer.reserved)
    assert found.task.vocab_size == real.vocab_size  # of text that a program writes


TINY_LM = (
    "configs/gpt.py:smoke",
    "--config.task.sequence_length=64",
    "--config.model.num_layers=1",
    "--config.model.dropout_rate=0",
)


@functools.cache
def planned(num_devices, *more):
    """(settings, stand-in, trainer) of the tiny language model."""
    settings = settings_of(*TINY_LM, *more)
    given = stand_in.stand_in(settings)
    return settings, given, compiler.build(settings, given, jax.devices()[:num_devices])


def test_formula_and_compiler_agree_on_a_step_and_on_what_it_sends():
    settings, given, trainer = planned(4)
    formula = formulas.by_formula(settings, given, trainer)
    found = compiler.compile_step(trainer, given.batch)
    assert found.program.flops * 4 == pytest.approx(formula.model_flops, rel=0.1)
    assert found.arguments == pytest.approx(sum(formula.state.values()), rel=0.1)
    sent = sum(one.sent for one in found.program.collectives)
    assert sent == pytest.approx(formula.sent, rel=0.1)
    (exchange,) = formula.exchanges
    assert (exchange.what, exchange.kind, exchange.group) == ("gradients", "all-reduce", 4)
    model = trainer.model
    products = formula.num_parameters - formula.parameters["norms"]
    products -= model.d_model * (model.max_positions + 5) + model.d_ff  # looked up, or added
    dense = planning.dense_flops(products, given.tokens, 1, model.d_model, 64)
    assert dense == pytest.approx(formula.model_flops, rel=0.01)


def test_a_mesh_divides_the_state_and_sends_by_its_axes():
    whole = formulas.by_formula(*planned(4))
    mesh = ("--config.parallel.strategy=mesh", "--config.parallel.mesh=(1,2,2)")
    found = formulas.by_formula(*planned(4, *mesh))
    assert found.state["parameters"] < 0.45 * whole.state["parameters"]
    assert found.model_flops == whole.model_flops
    assert found.activations == pytest.approx(2 * whole.activations)  # rows of two devices
    kinds = {(one.what, one.kind): one.group for one in found.exchanges}
    assert kinds == {
        ("parameters", "all-gather"): 2,
        ("gradients", "reduce-scatter"): 2,
        ("activations", "all-reduce"): 2,
    }


def test_remat_keeps_less_and_runs_more():
    plain = formulas.by_formula(*planned(1))
    again = formulas.by_formula(*planned(1, "--config.model.remat=true"))
    assert again.activations < 0.7 * plain.activations
    assert again.model_flops == plain.model_flops


def test_micro_batches_move_no_less_and_gather_more():
    mesh = ("--config.parallel.strategy=mesh", "--config.parallel.mesh=(1,2,2)")
    whole = formulas.by_formula(*planned(4, *mesh))
    cut = formulas.by_formula(*planned(4, *mesh, "--config.accumulate=4"))
    assert cut.activations == whole.activations / 4
    parameters = whole.state["parameters"]
    assert cut.bytes == whole.bytes + 3 * 4 * parameters  # read twice, gradients added to a sum
    assert cut.unfused_bytes - cut.bytes == whole.unfused_bytes - whole.bytes
    (gathered, scattered, summed), (first, *others) = cut.exchanges, whole.exchanges
    assert gathered.sent == 4 * first.sent
    assert [scattered, summed] == others


def test_gpt2_small_is_bound_by_products_unless_nothing_is_fused(capsys):
    config = "--config=configs/gpt.py:model=gpt2-small"
    options = ["dtype=bfloat16", "scan_layers=true"]
    shape = ["tokenizer.vocab_size=50257", "sequence_length=1024"]
    options = [
        *(f"--config.model.{one}" for one in options),
        *(f"--config.task.{one}" for one in shape),
    ]
    assert plan.main([config, "--devices=H100", "--formula", *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    products, memory, _, longest, _ = next(row[-5:] for row in rows if row[:2] == ["by", "formula"])
    assert products == longest
    assert float(products) == pytest.approx(1e3 * 1.40e13 / 989e12, rel=0.01)
    assert float(memory) < 5
    unfused = next(row[-5:] for row in rows if row[:2] == ["were", "all"])
    assert unfused[3] == unfused[1]
    assert float(unfused[3]) > float(products)


@pytest.mark.parametrize("name", CHIPS)
def test_no_chip_beats_its_roofline(name):
    chip = CHIPS[name]
    one = planning.roofline(chip, False, 1e15, 1e9, [(range(4), 1e6)])
    assert (one.bound, one.seconds) == ("compute", 1e15 / chip.flops)
    assert planning.utilisation(chip, False, 4e15, one.seconds, 4) == pytest.approx(1)
    assert planning.roofline(chip, False, 1e9, 1e12, []).bound == "memory"
    far = planning.roofline(chip, False, 1e9, 1e6, [((0, chip.together), 1e12)])
    assert (far.bound, far.seconds) == ("network", 1e12 / chip.network)
    assert planning.peak(chip, True) <= chip.flops
    found = planning.budget(1e9, 1000, 0.36, 10, 2.0)
    assert found == (1_000_000, pytest.approx(100 / 24), pytest.approx(1000), pytest.approx(2000))


GOOD = {"8xH100": 8, "H200": 1, "v5p:8x8x16": 1024, "v5e:16x16": 256, "v4:2x2x4": 16}
BAD = [
    ("8xH10", "Did you mean 'H100'?"),
    ("v5:2x2", "Did you mean 'v5"),
    ("v5e", "v5e:4x4"),
    ("8xv5e", "v5e:4x4"),
    ("H100:2x2", "8xH100"),
    ("v5e:2x2x2", "2 sizes"),
    ("v5p:4x4", "3 sizes"),
    ("v5e:32x2", "16x16"),
    ("v5e:0x2", "2 sizes"),
    ("v5e:twoxtwo", "2 sizes"),
    ("0xH100", "at least one"),
    ("", "Known: A100"),
]


def test_devices_are_known_or_refused_in_one_line(capsys):
    assert {text: targets.parse_target(text).num_chips for text in GOOD} == GOOD
    for text, words in BAD:
        code = plan.main([f"--devices={text}", "--config=configs/gpt.py:smoke"])
        message = capsys.readouterr().err
        assert (code, message.count("\n")) == (64, 1), text
        assert words in message, message
    print(f"{len(BAD)} targets refused")


REFUSED = [
    (("--mesh=2,2",), "1,8,2"),
    (("--mesh=2,2,1",), "has 4 places"),
    (("--mesh=0,2,2",), "1,8,2"),
    (("--tokens=-1",), "above 0"),
    (("--price=2",), "--tokens"),
    (("--config.model.d_modle=3",), "Did you mean 'd_model'?"),
    (("--devises=3",), "'--devises'"),
]


def test_formulas_answer_for_the_largest_machines(monkeypatch):
    asked = {}
    monkeypatch.setattr(targets.cores, "asked_for", lambda: 0)
    monkeypatch.setattr(targets.jax.config, "update", asked.__setitem__)
    for name in ("8192xH100", "v5p:16x20x28"):
        monkeypatch.setattr(targets, "has_compiler", lambda: False)
        targets.prepare(targets.parse_target(name))
        assert asked["jax_num_cpu_devices"] == targets.parse_target(name).num_chips


def test_what_is_wrong_with_a_plan_is_one_line(capsys):
    for arguments, words in REFUSED:
        code = plan.main(["--config=configs/gpt.py:smoke", "--devices=8xH100", *arguments])
        message = capsys.readouterr().err
        assert (code, message.count("\n")) == (64, 1), arguments
        assert words in message, message
    code = plan.main(["--config=configs/gpt.py:smoke", "--devices=64xH100"])
    assert (code, "64 simulated devices" in capsys.readouterr().err) == (64, True)


def test_the_command_says_what_does_not_fit_and_what_to_change(capsys, monkeypatch):
    small = CHIPS["H100"]._replace(memory=3.6e6)
    monkeypatch.setitem(CHIPS, "H100", small)
    arguments = [f"--config={TINY_LM[0]}", *TINY_LM[1:], "--devices=4xH100", "--formula"]
    assert plan.main([*arguments, "--tokens=1e9", "--price=2", "--largest_batch"]) == 0
    found = capsys.readouterr().out
    for words in (
        "DOES NOT FIT",
        "--mesh=1,4,1",
        "--config.model.remat=true",
        "--config.parallel.strategy=mesh --config.parallel.offload=moments",
        "chip-hours",
        "rows",
    ):
        assert words in found, found


def test_devices_of_a_plan_are_those_that_a_strategy_is_built_for():
    block = {"strategy": "mesh", "num_devices": 0, "mesh": (1, 2, 1), "canonical_shards": 0}
    chosen = jax.devices()[6:]
    with on_devices(chosen):
        assert list(build_strategy({**block, "num_devices": 2}).mesh.devices.flat) == chosen
    with pytest.raises(ConfigError, match="product must be equal"):
        build_strategy({**block, "num_devices": 8})


def test_moments_that_the_host_keeps_are_planned_there(capsys):
    options = ("--config.parallel.strategy=mesh", "--config.parallel.mesh=(1,2,2)")
    there = formulas.by_formula(*planned(4, *options))
    away = formulas.by_formula(*planned(4, *options, "--config.parallel.offload=moments"))
    assert away.host + away.state["optimizer"] == there.state["optimizer"]
    assert away.host > 0.9 * there.state["optimizer"]  # vectors stay
    assert away.memory + away.host == there.memory
    trainer = planned(4, *options, "--config.parallel.offload=moments")[2]
    found = compiler.compile_step(trainer, planned(4)[1].batch)
    assert found.host == away.host
    assert found.arguments == pytest.approx(sum(away.state.values()), rel=0.1)
    arguments = [f"--config={TINY_LM[0]}", *TINY_LM[1:], "--config.parallel.offload=moments"]
    assert plan.main([*arguments, "--devices=4xH100", "--mesh=1,4,1", "--formula"]) == 0
    out = capsys.readouterr().out
    assert "on the host" in out
    assert "GiB come from the host" in out
    assert plan.main([*arguments, "--devices=4xH100", "--formula"]) == 64
    assert "offload 'moments' needs config.parallel.strategy 'mesh'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sentence", "used"),
    [
        ("Ran out of memory in memory space hbm. Used 18.30G of 15.75G hbm. Exceeded", 18.3),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (29.40G) "
            "exceeds available HBM (15.75G). HLO module: jit_whole.",
            29.4,
        ),
    ],
)
def test_what_does_not_fit_a_tpu_is_read_from_what_its_compiler_says(sentence, used):
    match = compiler.TOO_LARGE.search(sentence)
    assert match is not None
    assert (float(match[1]), match[2], float(match[3]), match[4]) == (used, "G", 15.75, "G")
