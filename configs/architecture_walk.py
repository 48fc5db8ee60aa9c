"""From RNN to Transformer, one borrowed part at a time (Domhan 2018).

  python train.py --config=configs/architecture_walk.py:step=positions --workdir=runs/positions

Each step has all parts of those before it: rnn (LSTM, one head of attention in the top layer),
multi_head, positions, norm, feed_forward, multi_layer (attention in every layer),
self_attention_encoder, and self_attention_decoder, which is the Transformer. Residual
connections are there from the beginning. experiments/architecture_walk.py walks.

Arguments: step, data (toy_language, copy, reverse, sort, addition, "bible" from Italian into
English, or a folder as for configs/translation.py), size (tiny or small), seed, and smoke (a whole
run in seconds).
"""

from ml_collections import ConfigDict

from configs import base

# What each step adds; the heads of multi_head are as many as the Transformer of the size has.
STEPS: dict[str, dict] = {
    "rnn": {},
    "multi_head": {},
    "positions": {"positions": True},
    "norm": {"norm": True},
    "feed_forward": {"feed_forward": True},
    "multi_layer": {"cross_attention": "all"},
    "self_attention_encoder": {"encoder_layers": "self_attention"},
    "self_attention_decoder": {"decoder_layers": "self_attention"},
}
MADE = ("toy_language", "copy", "reverse", "sort", "addition")


def model_of(step: str, size: str) -> dict:
    """The block of the model after a step."""
    base.choose("step", step, STEPS)
    width = base.choose("size", size, base.TRANSFORMER_SIZES)
    block = {
        "name": "hybrid_seq2seq",
        **width,
        "num_heads": 1,
        "num_encoder_layers": base.TRANSFORMER_LAYERS[size],
        "num_decoder_layers": base.TRANSFORMER_LAYERS[size],
        "encoder_layers": "recurrent",
        "decoder_layers": "recurrent",
        "positions": False,
        "norm": False,
        "feed_forward": False,
        "cross_attention": "last",
    }
    names = list(STEPS)
    for name in names[: names.index(step) + 1]:
        block |= STEPS[name]
    return block | ({"num_heads": width["num_heads"]} if step != "rnn" else {})


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.parse(arg, step="rnn", data="toy_language", size="tiny", seed=0, smoke=False)
    config = base.config()
    config.seed = given.seed
    made = given.data in MADE
    source = {"name": given.data} if made else base.text_pairs(given.data, "it", "en")
    own = {"tokens_per_batch": 1024, "max_length": 64, "num_buckets": 2} if made else {}
    words = {"name": "words"} if made else {"name": "bpe", "vocab_size": 1000}
    config.task = base.pairs_task("translation", source, tokenizer=words, num_beams=1, **own)
    config.model = model_of(given.step, "tiny" if given.smoke else given.size)
    config.model.dropout_rate = 0.0
    config.num_steps = 1000
    config.eval_every = config.save_every = 100
    config.optimizer.learning_rate = 2e-3
    if given.smoke:
        base.smoke(config)
    return config


def sweep() -> list[str]:
    """One argument string for each run: every step, three seeds."""
    return [f"step={step},seed={seed}" for step in STEPS for seed in range(3)]
