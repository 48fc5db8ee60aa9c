"""What a trained language model writes, to look at when a run ends."""

from collections.abc import Callable
from typing import Any

from data.tokenizers import Tokenizer
from decoding.filters import Filters
from tasks.base import Evaluation
from tasks.generation import Generator
from tasks.text import TextTask

PROMPT_LENGTH = 8  # tokens of a text, at most, that a sample goes on with
SAMPLE_LENGTH = 32  # tokens of a sample, at most
TOP_P = 0.95  # drawn from the fewest tokens that are so likely together


def continued(
    model: Any,
    variables: Any,
    task: TextTask,
    split: str,
    number: int,
    side: str,
    poll: Callable[[], None],
) -> Evaluation:
    """The first texts of a split with other ends, which the model has drawn.

    Args:
        number: of texts.
        side: "source" or "target", whose first tokens are the prompt, or "both": the prompt is
            the source.
        poll: called before the work.
    """
    if not number:
        return Evaluation()
    examples, tokenizer = task.texts.pairs(split)[:number], task.tokenizer
    if side == "both":
        pairs = [(one.source, one.target) for one in examples]
    else:
        pairs = [halves(tokenizer, getattr(one, side)) for one in examples]
    poll()
    room = model.longest_row() or 2 * SAMPLE_LENGTH
    generator = Generator(
        model,
        variables,
        tokenizer,
        filters=Filters(top_p=TOP_P),
        max_new_tokens=min(SAMPLE_LENGTH, max(room // 2, 1)),
        two_sided=side == "both",
    )
    written = generator.generate([prompt for prompt, _ in pairs])
    return Evaluation(
        samples=[
            {"prompt": prompt, "reference": end, "sample": samples[0].text}
            for (prompt, end), samples in zip(pairs, written, strict=True)
        ]
    )


def halves(tokenizer: Tokenizer, text: str) -> tuple[str, str]:
    """The beginning of a text, a prompt of a few tokens, and the rest.

    A token may end within a character: the prompt is then the tokens before it.
    """
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    for number in range(min(len(ids) // 2, PROMPT_LENGTH), 0, -1):
        prompt = tokenizer.decode(ids[:number])
        if whole.startswith(prompt):
            return prompt, whole[len(prompt) :]
    return "", whole
