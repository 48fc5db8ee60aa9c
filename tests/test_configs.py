"""Config files, the strings that choose from them, and overrides on the command line."""

import importlib
import json

import jax
import pytest

import models
import tasks
from configs import base
from errors import ConfigError
from training import schema
from training.config_files import load_config

CONFIGS = (
    "architecture_walk",
    "bart",
    "bert",
    "classification",
    "elmo",
    "gpt",
    "hidden_markov",
    "language_model",
    "memory_network",
    "synthetic",
    "t5",
    "translation",
)


def settings_of(config, *overrides):
    loaded = load_config(config, overrides)
    return schema.validate(loaded, models=models.MODELS, tasks=tasks.TASKS)


def refusal(config, *overrides):
    """The one line with which a command is refused."""
    with pytest.raises(ConfigError) as caught:
        settings_of(config, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 64
    return message


@pytest.mark.parametrize("name", CONFIGS)
def test_every_string_of_a_sweep_is_a_valid_config(name):
    strings = importlib.import_module(f"configs.{name}").sweep()
    assert len(set(strings)) == len(strings) > 1
    seen = set()
    for string in ["", *strings]:
        whole = settings_of(f"configs/{name}.py:{string}" if string else f"configs/{name}.py")
        small = settings_of(
            f"configs/{name}.py:{string},smoke" if string else f"configs/{name}.py:smoke"
        )
        assert small["num_steps"] <= 5
        assert small["task"]["source"]["name"] in (
            *("copy", "reverse", "sort", "addition"),
            *("entailment", "multiple_choice", "similarity", "tagging"),
            "hidden_markov",
            "supporting_facts",
            "toy_language",
        )
        assert small["model"]["name"] == whole["model"]["name"]
        seen.add(json.dumps(schema.to_json(whole)))
    assert len(seen) >= len(strings)  # no two strings mean the same
    print(f"{len(strings) + 1} strings")


def test_every_preset_is_a_model_and_a_size_means_the_same_in_all_families():
    sizes = {}
    for name, block in base.MODELS.items():
        model = models.build(block, vocab_size=4000)
        shapes = jax.eval_shape(lambda model=model: models.init(model, jax.random.key(0)))
        family = "lm" if name.startswith("lm-") else "seq2seq"
        assert (model.kind == "language_model") == (family == "lm")
        sizes.setdefault((family, name.rpartition("-")[2]), []).append(
            models.num_parameters(shapes)
        )
    assert {size for _, size in sizes} == {"tiny", "small", "base"}
    for counts in sizes.values():
        assert max(counts) < 2 * min(counts)
    print(f"{len(base.MODELS)} presets")


DEFAULTS = {"model": "small", "data": "bible", "seed": 0, "rate": 0.5, "smoke": False}
PARSED = [
    ("", {}),
    ("smoke", {"smoke": True}),
    ("smoke=false", {}),
    ("model=lstm,seed=2,smoke", {"model": "lstm", "seed": 2, "smoke": True}),
    ("data=/a/b=c:d,seed=1", {"data": "/a/b=c:d", "seed": 1}),
    ("rate=1", {"rate": 1.0}),
    ("rate=1e-3,data=x.py:y", {"rate": 1e-3, "data": "x.py:y"}),
]
NOT_PARSED = [
    ("modle=x", "'modle'. Did you mean 'model'?"),
    ("smok", "'smok'. Did you mean 'smoke'?"),
    ("seed", "seed"),
    ("seed=x", "a whole number"),
    ("seed=1.5", "a whole number"),
    ("rate=nan", "a number"),
    ("rate=x", "a number"),
    ("smoke=maybe", "true or false"),
    ("data=", "data"),
    ("seed=1,seed=2", "seed"),
    ("seed=1,,smoke", "''"),
    ("=3", "''"),
    ("smoke seed=1", "'smoke seed'"),
]


def test_arguments_have_the_names_and_types_of_the_defaults():
    for text, expected in PARSED:
        got = vars(base.parse(text, **DEFAULTS))
        assert got == DEFAULTS | expected
        assert [type(value) for value in got.values()] == [type(v) for v in DEFAULTS.values()]
    for text, words in NOT_PARSED:
        with pytest.raises(ConfigError) as caught:
            base.parse(text, **DEFAULTS)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    print(f"{len(PARSED)} strings parsed, {len(NOT_PARSED)} refused")


SMOKE = "configs/translation.py:smoke"
OVERRIDES = [
    ("seed=3", "seed", 3),
    ("optimizer.learning_rate=1", "optimizer.learning_rate", 1.0),
    ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 1e-3),
    ("model.remat=true", "model.remat", True),
    ("model.dtype=bfloat16", "model.dtype", "bfloat16"),
    ("parallel.mesh=(2,2,2)", "parallel.mesh", (2, 2, 2)),
    ("parallel.mesh=1,2,4", "parallel.mesh", (1, 2, 4)),
    ("parallel.rules.vocab=fsdp,tensor", "parallel.rules.vocab", ("fsdp", "tensor")),
    ("data_dir=123", "data_dir", "123"),
    ("data_dir=a=b", "data_dir", "a=b"),
    ("task.tokenizer={'name': 'bytes'}", "task.tokenizer", {"name": "bytes"}),
    ("optimizer.schedule.name=linear", "optimizer.schedule.name", "linear"),
]
# The field that is named and what else is said.
BAD_OVERRIDES = [
    ("--config.optimizer.lerning_rate=1", "config.optimizer", "Did you mean 'learning_rate'?"),
    ("--config.optimiser.b1=0.5", "config", "Did you mean 'optimizer'?"),
    ("--config.sed=1", "config", "Did you mean 'seed'?"),
    ("--config.model.num_head=2", "config.model", "Did you mean 'num_heads'?"),
    ("--config.model.d_model=x", "config.model.d_model", "'x'"),
    ("--config.seed=1.5", "config.seed", "1.5"),
    ("--config.seed=", "config.seed", "''"),
    ("--config.seed.x=1", "config.seed", "no fields"),
    ("--config.model=lstm", "config.model", "block"),
    ("--config.model.remat=dot", "config.model.remat", "Did you mean 'dots'?"),
    ("--config.optimizer.learning_rate=nan", "config.optimizer.learning_rate", "nan"),
    ("--config.parallel.mesh=2", "config.parallel.mesh", "list"),
    ("--config.parallel.rules.heds=data", "config.parallel.rules", "Did you mean 'heads'?"),
    ("--config.parallel.rules.heads=dat", "config.parallel.rules.heads[0]", "mean 'data'?"),
    ("--config.parallel.mesh=[[[", "config.parallel.mesh", "list"),
    ("--config.task.source.name=bibel", "config.task.source.name", "Did you mean 'bible'?"),
    ("--config.num_steps=" + "9" * 5000, "config.num_steps", "whole number"),
    ("--config.task.source.num_train=-1", "config.task.source.num_train", "at least 1"),
    ("--config.__class__=1", "config", "__class__"),
    ("--config.keys=1", "config", "'keys'"),
    ("--config.seed", "--config.seed", "needs a value"),
    ("--confg.seed=1", "", "--confg.seed"),
    ("seed=1", "", "seed=1"),
    ("--steps=3", "", "--steps"),
]


def test_overrides_reach_their_field():
    for override, path, expected in OVERRIDES:
        mesh = ["--config.parallel.strategy=mesh"] * ("rules" in path)
        found = settings_of(SMOKE, *mesh, f"--config.{override}")
        for name in path.split("."):
            found = found[name]
        assert found == expected
        assert type(found) is type(expected)
    assert settings_of(SMOKE, "--config.seed=1", "--config.seed=2")["seed"] == 2
    twice = ["--config.model.dropout_rate=0", "--config.model.dropout_rate=0.5"]
    assert settings_of(SMOKE, *twice)["model"]["dropout_rate"] == 0.5  # a 0 is no whole number
    print(f"{len(OVERRIDES)} overrides")


def test_a_wrong_override_is_one_line_that_names_the_field():
    for override, field, words in BAD_OVERRIDES:
        message = refusal(SMOKE, override)
        assert field in message, message
        assert words in message, message
        assert len(message) < 600
    print(f"{len(BAD_OVERRIDES)} overrides")


GET = "from configs import base\ndef get_config(arg=''):\n    "
BAD_FILES = [
    ("syntax.py", "x = (", "syntax.py"),
    ("empty.py", "", "get_config"),
    ("value.py", "get_config = 3", "get_config"),
    ("raises.py", GET + "raise KeyError('a\\nb')", "KeyError"),
    ("imports.py", "import not_installed_here", "not_installed_here"),
    ("exits.py", "raise SystemExit(3)", "exits.py"),
    ("number.py", GET + "return 3", "int"),
    ("hollow.py", GET + "return base.config()", "config.task.name"),
    ("bytes.py", b"\xff\xfe", "bytes.py"),
    ("nul.py", b"x = 1\0", "nul.py"),
    ("two.py", "def get_config(a, b):\n    return a", "two.py"),
    ("array.py", GET + "c = base.config()\n    c.extra = object()\n    return c", "config.extra"),
    ("brace.json", "{", "brace.json"),
    ("list.json", "[]", "list.json"),
    ("empty.json", "", "empty.json"),
    ("latin.json", b"\xff", "latin.json"),
    ("deep.json", "[" * 100_000, "deep.json"),
    ("fields.json", '{"sede": 1}', "sede"),
]
BAD_NAMES = [
    ("configs/translatoin.py", "configs/translation.py"),
    ("configs/translatoin.py:smoke", "configs/translation.py"),
    ("translation", "translation"),
    ("configs", "configs"),
    ("", "--config"),
    ("configs/base.py", "get_config"),
    ("nowhere/config.json", "nowhere/config.json"),
    ("configs/translation.py:model=lstm-smal", "Did you mean 'lstm-small'?"),
    ("configs/translation.py:model=lm-lstm-small", "Did you mean 'lstm-small'?"),
    ("configs/language_model.py:model=lstm-small", "lm-lstm-small"),
    ("configs/synthetic.py:task=coppy", "Did you mean 'copy'?"),
    ("configs/translation.py:seed=-1", "config.seed"),
]


def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path):
    for name, content, words in BAD_FILES:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert words in refusal(str(file)), name
    for config, words in BAD_NAMES:
        assert words in refusal(config)
    print(f"{len(BAD_FILES)} files, {len(BAD_NAMES)} names")


def test_no_program_is_run_from_a_run_directory(tmp_path):
    run, mark = tmp_path / "run", tmp_path / "mark"
    (run / "deeper").mkdir(parents=True)
    (run / "journal.jsonl").touch()
    program = f"open({str(mark)!r}, 'w')\n"
    (run / "a.py").write_text(program, encoding="utf-8")
    (run / "deeper" / "b.py").write_text(program, encoding="utf-8")
    (tmp_path / "link.py").symlink_to(run / "a.py")
    for file in (run / "a.py", run / "deeper" / "b.py", tmp_path / "link.py"):
        assert "run directory" in refusal(str(file))
    assert not mark.exists()


def test_two_calls_give_two_configs():
    first, second = load_config("configs/translation.py"), load_config("configs/translation.py")
    first.model.d_model = 1
    assert second.model.d_model != 1
    assert base.MODELS["transformer-small"]["d_model"] != 1


def test_a_small_run_reads_no_tweets():
    small = settings_of("configs/elmo.py:data=tweets,smoke")
    assert small["task"]["source"]["name"] == "toy_language"


@pytest.mark.parametrize("argument", ["fraction=0.1", "init_from=runs/lm"])
def test_what_an_encoder_decoder_cannot_follow_is_refused(argument):
    message = refusal(f"configs/classification.py:model=transformer-small,{argument}")
    assert message.startswith(f"Config argument {argument.split('=')[0]} needs a classifier")
