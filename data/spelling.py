"""How the pieces of a tokenizer are spelled, for models that read characters."""

import numpy as np

from data.tokenizers import SPECIAL, Tokenizer
from errors import ConfigError

# Ids of characters: 0 is padding, 1 to 256 are bytes, then the two ends of a word, then tokens
# that are no words.
BEGIN_WORD, END_WORD, NO_WORD = 257, 258, 259
LEAST_WIDTH = 4  # of a reserved id


def spellings(tokenizer: Tokenizer, width: int) -> np.ndarray:
    """The characters of each id of the tokenizer, (vocab_size, width) int32.

    A piece is its bytes in UTF-8 between two marks, cut to the width (Peters et al. 2018 take 50);
    one that does not begin a word lacks the first.
    PAD has none; another special or reserved id has one of its own kind, reserved ones the same
    as UNK with their number behind it.

    Raises:
        ConfigError: the width does not hold a reserved id.
    """
    if width < LEAST_WIDTH:
        raise ConfigError(
            f"config.task.max_characters must be 0 or at least {LEAST_WIDTH}, got {width}."
        )
    table = np.zeros((tokenizer.vocab_size, width), np.int32)
    for i in range(1, len(SPECIAL)):
        table[i, :3] = BEGIN_WORD, NO_WORD + i, END_WORD
    for number, i in enumerate(tokenizer.reserved.values(), 1):
        table[i, :4] = BEGIN_WORD, NO_WORD, number, END_WORD
    begins = tokenizer.word_starts()
    for i in tokenizer.text_ids():
        content = [byte + 1 for byte in tokenizer.decode([int(i)]).encode()[: width - 2]]
        spelled = [*[BEGIN_WORD] * int(begins[i]), *content, END_WORD]
        table[i, : len(spelled)] = spelled
    return table
