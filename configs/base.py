"""What every config begins with: its fields, the sizes of models, and its arguments.

A block names a thing and its options, {"name": "adamw", ...}. Options that a block leaves
out have the defaults of the class; training/schema.py fills them in and checks them all.
"""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from configs.base_arguments import parse
from configs.base_families import family
from errors import ConfigError
from registry import unknown

# tiny: for tests and toys. small: minutes on two CPU cores. base: the sizes of the papers
# (Vaswani et al. 2017; Bahdanau et al. 2015, 620 and 1000 rounded up to multiples of 128;
# Zaremba et al. 2014 for the recurrent language model; Gehring et al. 2017, as many layers as
# come to the size of the others). Within a size, the families differ
# by less than a factor of 1.5 in parameters without embeddings (a test counts them).
TRANSFORMER_SIZES = {
    "tiny": {"d_model": 64, "num_heads": 2, "d_ff": 256},
    "small": {"d_model": 256, "num_heads": 4, "d_ff": 1024},
    "base": {"d_model": 512, "num_heads": 8, "d_ff": 2048},
}
TRANSFORMER_LAYERS = {"tiny": 2, "small": 2, "base": 6}
LM_TRANSFORMER_LAYERS = {"tiny": 2, "small": 4, "base": 6}
# Size: embedding, hidden, layers of the encoder, layers of the decoder. Without attention
# the decoder is smaller by what attention and its reading take, so base has one layer more.
LSTM_ATTENTION_SIZES = {
    "tiny": (64, 64, 2, 2),
    "small": (256, 256, 2, 2),
    "base": (640, 1024, 1, 1),
}
LSTM_SIZES = LSTM_ATTENTION_SIZES | {"base": (640, 1024, 1, 2)}
LM_LSTM_SIZES = {"tiny": (64, 64, 2), "small": (256, 512, 2), "base": (640, 1024, 2)}

# Words' vectors and projections, cells; base is the size of Peters et al. (2018), who read
# characters. Two layers in each direction.
ELMO_SIZES = {"tiny": (32, 64), "small": (256, 512), "base": (512, 4096)}

# Size: embedding, hidden, layers of the encoder, layers of the decoder; all see three words.
CONVOLUTIONAL_SIZES = {
    "tiny": (64, 96, 2, 2),
    "small": (256, 256, 4, 3),
    "base": (512, 512, 10, 8),
}


def _sized(sizes: tuple[int, int, int, int]) -> dict[str, int]:
    names = ("embedding_size", "hidden_size", "num_encoder_layers", "num_decoder_layers")
    return dict(zip(names, sizes, strict=True))


def _recurrent(attention: str, sizes: tuple[int, int, int, int]) -> dict[str, Any]:
    return {"name": "recurrent_seq2seq", **_sized(sizes), "attention": attention}


def _seq2seq() -> dict[str, dict[str, Any]]:
    """Blocks of the models that read one sequence and write another, by preset."""
    blocks = {}
    for size, width in TRANSFORMER_SIZES.items():
        layers = TRANSFORMER_LAYERS[size]
        both = {"num_encoder_layers": layers, "num_decoder_layers": layers}
        blocks[f"transformer-{size}"] = {"name": "transformer_seq2seq", **width, **both}
        blocks[f"lstm-attention-{size}"] = _recurrent("additive", LSTM_ATTENTION_SIZES[size])
        blocks[f"lstm-{size}"] = _recurrent("none", LSTM_SIZES[size])
        convolutional = {"name": "convolutional_seq2seq", **_sized(CONVOLUTIONAL_SIZES[size])}
        blocks[f"conv-{size}"] = convolutional
    return blocks


def _language_models() -> dict[str, dict[str, Any]]:
    """Blocks of the models that go on with a sequence, by preset."""
    blocks = {}
    for size, width in TRANSFORMER_SIZES.items():
        layers = LM_TRANSFORMER_LAYERS[size]
        blocks[f"lm-transformer-{size}"] = {"name": "transformer_lm", **width, "num_layers": layers}
        sized = zip(
            ("embedding_size", "hidden_size", "num_layers"), LM_LSTM_SIZES[size], strict=True
        )
        blocks[f"lm-lstm-{size}"] = {"name": "recurrent_lm", **dict(sized)}
    return blocks


def _bidirectional() -> dict[str, dict[str, Any]]:
    """Blocks of the models that read from both ends, by preset."""
    return {
        f"elmo-{size}": {"name": "elmo", "embedding_size": words, "hidden_size": cells}
        for size, (words, cells) in ELMO_SIZES.items()
    }


SEQ2SEQ = _seq2seq()
LANGUAGE_MODELS = _language_models()
BIDIRECTIONAL = _bidirectional()
MODELS = SEQ2SEQ | LANGUAGE_MODELS

# The families of the Transformer, which have sizes of their own (configs/base_families.py).
GPT = family("gpt1", "gpt2")
BERT = family("bert", "roberta")
T5 = family("t5", "t5v1.1")
BART = family("bart")
MARIAN = family("marian")


# The two widths of a model that grow together where its size is matched to another's; heads
# divide the first.
WIDTHS = {
    "convolutional_seq2seq": ("hidden_size", "embedding_size"),
    "elmo": ("hidden_size", "embedding_size"),
    "hybrid_seq2seq": ("d_model", "d_ff"),
    "recurrent_lm": ("hidden_size", "embedding_size"),
    "recurrent_seq2seq": ("hidden_size", "embedding_size"),
    "transformer_encoder": ("d_model", "d_ff"),
    "transformer_lm": ("d_model", "d_ff"),
    "transformer_seq2seq": ("d_model", "d_ff"),
}

# What no language model has, and the layers on top of one that an encoder does not have.
WITHOUT_COUNTERPART = (
    "*/cross_attention/*",
    "*/cross_norm/*",
    "*/backward/*",
    "attention_decoder/*",
    "pointer/*",
    "readout/*",
    "output/*",
    "logits_bias",
)


def config() -> ConfigDict:
    """Every field but the task and the model, which a config file chooses."""
    return ConfigDict(
        {
            "seed": 0,
            "num_steps": 1000,  # batches that are read
            "data_dir": "",  # prepared data and caches; "" is .cache in this repository
            "task": {},
            "model": {},
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-3,  # the peak
                "clip_norm": 1.0,  # largest global norm of a gradient; 0 is off
                "clip": {"name": "none"},  # or value, adaptive: before clip_norm
                "layer_decay": 1.0,  # each layer learns so much slower than the one above it
                "schedule": {"name": "cosine", "warmup_steps": 100},
            },
            # Runs, or folders of published weights: of language models that the parts of an
            # encoder-decoder begin with, or of the model in a classifier; and patterns of
            # parameters that may then keep their fresh values or find no place.
            "init_from": {
                "encoder": "",
                "decoder": "",
                "inner": "",  # of a classifier
                "model": "",  # all of the model
                "allow": WITHOUT_COUNTERPART,
            },
            "freeze": (),  # patterns of parameters that are not trained
            "accumulate": 1,  # micro-batches in which a batch is computed
            "ema_decay": 0.0,  # of a moving average of parameters, to evaluate; 0 is off
            "average_checkpoints": 0,  # newest checkpoints averaged at the end; 0 is off
            "early_stopping_patience": 0,  # evaluations without a better one; 0 is off
            "max_skipped_steps": 20,  # in a row, for gradients that are not finite
            "log_every": 20,
            "diagnose_every": 100,  # norms of each layer, and warnings; 0 is off
            "eval_every": 200,
            "save_every": 200,
            "keep_checkpoints": 3,
            "final_split": "test",
            "profile": "",  # FIRST:LAST, steps of which a trace is kept
            "parallel": {
                "strategy": "pmap",  # or "mesh"
                "num_devices": 0,  # 0 is all; of a CPU one
                "mesh": (0, 1, 1),  # data, fsdp, tensor; a leading 0 is filled in
                "canonical_shards": 0,  # gradients bit for bit equal on all that divide it
                "offload": "none",  # or "moments": of the optimizer, which the host keeps
                "rules": {},  # beside those of training/axis_rules.py: {"length": "fsdp"}
            },
        }
    )


def text_pairs(data: str, source_language: str, target_language: str) -> dict[str, Any]:
    """The source block of an argument data=: "bible", or the path of a folder."""
    languages = {"source_language": source_language, "target_language": target_language}
    if data == "bible":
        return {"name": "bible", **languages}
    return {"name": "folder", "path": str(Path(data).expanduser().absolute()), **languages}


def text_arguments(arg: str, **defaults: Any) -> SimpleNamespace:
    """The arguments of a config that learns from one text, beside its own."""
    common = {"data": "bible", "source_language": "it", "target_language": "en"}
    return parse(arg, **defaults, **common, seed=0, smoke=False)


def text_options(given: SimpleNamespace) -> dict[str, Any]:
    """The options of a task on the text of the target language, from text_arguments; tweets have
    texts without a translation."""
    tweets = given.data == "tweets"
    languages = (given.source_language, given.target_language)
    return {
        "source": {"name": "tweets"} if tweets else text_pairs(given.data, *languages),
        "tokenizer": {"name": "bpe", "vocab_size": 4000},
        "side": "source" if tweets else "target",
        "sequence_length": 128,
        "sequences_per_batch": 16,
    }


def pairs_task(name: str, source: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The block of a task on pairs of sequences, with `options` in place of its defaults."""
    block = {
        "name": name,
        "source": source,
        "tokenizer": {"name": "words"},
        "tokens_per_batch": 2048,
        "max_length": 100,
        "num_buckets": 6,
        "label_smoothing": 0.0,
        "num_beams": 5,
        "length_penalty": 1.0,
    }
    return block | options


def language_task(source: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The block of a language model's task, with `options` in place of its defaults."""
    block = {
        "name": "language_modelling",
        "source": source,
        "tokenizer": {"name": "words"},
        "sequence_length": 128,
        "sequences_per_batch": 16,
        "packed": True,
        "label_smoothing": 0.0,
        "truncate": 0,
    }
    return block | options


def sweep(known: Iterable[str], size: str = "small") -> list[str]:
    """One argument string for each run: every preset of a size, three seeds."""
    models = [name for name in known if name.endswith(f"-{size}")]
    return [f"model={model},seed={seed}" for model in models for seed in range(3)]


def smoke(config: ConfigDict) -> None:
    """Makes a run that takes seconds on a CPU: few made-up sentences, three steps, one save."""
    small = {"num_train": 64, "num_validation": 8, "num_test": 8}
    if config.task.source.name in ("bible", "folder", "pronunciations", "tweets"):
        config.task.source = {"name": "toy_language"}
    config.task.source.update(small)
    config.task.tokenizer = {"name": "words"}
    if "num_beams" in config.task:  # of pairs_task
        config.task.tokens_per_batch, config.task.num_buckets = 256, 1
        config.task.num_beams = min(config.task.num_beams, 2)
    if "side" in config.task:  # of text_options
        config.task.sequence_length, config.task.sequences_per_batch = 32, 8
    config.num_steps = config.eval_every = config.save_every = 3
    config.log_every = 1
    config.optimizer.schedule.warmup_steps = 1


def choose(what: str, got: str, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A copy of the block that an argument names."""
    if got not in known:
        raise ConfigError(f"Config argument {what}: {unknown('value', got, known)}")
    return dict(known[got])


def choose_model(got: str, known: dict[str, dict[str, Any]], smoke: bool) -> dict[str, Any]:
    """The block of a preset; for a smoke run, that of the tiniest of its family."""
    block = choose("model", got, known)
    return dict(known[f"{got.rpartition('-')[0]}-tiny"]) if smoke else block
