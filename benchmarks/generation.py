"""Generation with a cache against Hugging Face's `generate`, on the same weights.

  python -m benchmarks.generation

A GPT-2 small (124 M parameters, fp32) goes on with 8 prompts of 32 tokens, greedily and with a
forced length, so that both sides do the same work on untrained weights. One step reads all
weights for 8 rows: the time is that of memory more than of arithmetic.
"""

import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import harness, texts
from benchmarks.translation import fresh_model, sources
from configs.base import GPT
from decoding.filters import Filters
from decoding.sampling import Rules
from tasks.generation import begin, go_on

TITLE = "Generation with a cache, against Hugging Face generate"
BLOCK = GPT["gpt2-small"]
VOCAB_SIZE, PROMPTS, PROMPT_LENGTH, NEW_TOKENS = 50257, 8, 32, 48
GOAL = 2.0
GREEDY = Filters(temperature=None)


class Generation:
    """Our generation, compiled for one shape; calling it gives (B, length) token ids."""

    def __init__(
        self, block: dict[str, Any], vocab_size: int, prompts_BT: np.ndarray, length: int
    ) -> None:
        self.model, self.variables = fresh_model(block, vocab_size)
        self.prompts_BT, self.length = prompts_BT, length
        self.rules = Rules(eos=vocab_size)  # no id: nothing ends

    def __call__(self) -> np.ndarray:
        batch_size, width = self.prompts_BT.shape
        samples = begin(
            self.model,
            self.variables,
            self.prompts_BT,
            np.full(batch_size, width, np.int32),
            np.zeros((batch_size, 1), np.uint32),
            GREEDY,
            max_new=self.length,
            rules=self.rules,
        )
        length = jnp.int32(self.length)
        samples = go_on(self.model, self.variables, samples, GREEDY, length, rules=self.rules)
        return np.asarray(samples.tokens_RT)


def main() -> int:
    """Measures, prints and keeps the table."""
    options = harness.arguments(__doc__, rounds=5).parse_args()
    prompts_BT = sources(PROMPTS, PROMPT_LENGTH, VOCAB_SIZE)
    prompts = f"{PROMPTS} prompts of {PROMPT_LENGTH} + {NEW_TOKENS} tokens"
    job = texts.Job(
        TITLE,
        worker="generation",
        build=lambda: Generation(BLOCK, VOCAB_SIZE, prompts_BT, NEW_TOKENS),
        what=f"GPT-2 small, fp32, {prompts}, greedy",
        units=PROMPTS * NEW_TOKENS,
        unit="tokens",
        goal=GOAL,
        remark="Times are of prompts and tokens together.",
    )
    return texts.compare(job, options)


if __name__ == "__main__":
    sys.exit(main())
