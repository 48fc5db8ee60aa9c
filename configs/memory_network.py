"""Questions whose answer follows from one, two or three sentences of a story.

  python train.py --config=configs/memory_network.py:facts=2,hops=2 --workdir=runs/memory
  python train.py --config=configs/memory_network.py:facts=2,hops=1 --workdir=runs/memory-1-hop

A network that reads the story once cannot find who has the milk and then where they are.
Linear start (Sukhbaatar et al. 2015, 4.2) is a run without softmax and one that goes on with it:

  python train.py --config=configs/memory_network.py:facts=3,hops=3,linear --workdir=runs/linear
  python train.py --config=configs/memory_network.py:facts=3,hops=3 --workdir=runs/memory-3 \\
    --config.init_from.model=runs/linear

Arguments: facts (sentences that the answer follows from, 1 to 3), hops (how often the story is
read), linear (no softmax), seed, and smoke (a whole run in seconds).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config for a string of arguments."""
    given = base.parse(arg, facts=2, hops=2, linear=False, seed=0, smoke=False)
    config = base.config()
    config.seed = given.seed
    config.task = base.pairs_task(
        "translation",
        {"name": "supporting_facts", "num_facts": given.facts},
        tokens_per_batch=4096,
        max_length=96,
        num_buckets=1,
        num_beams=1,
    )
    # The full stop is the most frequent word of these stories: id 4, the model's separator.
    config.model = {
        "name": "memory_network",
        "embedding_size": 32,
        "num_hops": given.hops,
        "linear": given.linear,
    }
    config.num_steps = 3000
    config.optimizer.learning_rate = 1e-2
    if given.smoke:
        base.smoke(config)
        config.task.tokens_per_batch = 512
    return config


def sweep() -> list[str]:
    """One argument string for each run: every kind of question, 1 to 3 hops, three seeds."""
    kinds = [(facts, hops) for facts in (1, 2, 3) for hops in (1, 2, 3)]
    return [f"facts={f},hops={h},seed={seed}" for f, h in kinds for seed in range(3)]
