"""Search for the best output of a model, or samples, one token at a time, inside one jit.

Everything here works on `step(carry, token_B) -> (carry, logits_BV)` and knows nothing of what
makes the step: a recurrent network, a Transformer with its cache, or a table. Both searches are
pure and traceable, and take

    step:       the function above; beam search calls it with R = B * K rows, those of one batch
                row side by side.
    carry:      what step reads and changes; every leaf has the batch axis first.
                "state":  follows the hypotheses: repeated to R rows and reordered at each step.
                "memory": stays at B rows and is never reordered. Step may read and write it for
                          all K = R / B hypotheses of a batch row together, which spares a cache
                          of keys and values the reordering.
    batch_size: B.
    max_len:    the greatest number of tokens, EOS included; static, the width of the result.
    bos, eos, pad: ids of the first input, of the end, and of the filling after the end.
    min_len:    the least number of tokens before EOS.
    max_len_B:  the greatest number of tokens of each row, clipped to [1, max_len].
    banned:     ids that are never generated; the others keep the probability that the model
                gives them (no renormalisation).

sampling.py draws what follows a prompt instead, through the filters of filters.py.
"""

from decoding.beam import beam_search
from decoding.greedy import greedy_search
from decoding.scoring import SearchResult

__all__ = ["SearchResult", "beam_search", "greedy_search"]
