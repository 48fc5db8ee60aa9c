"""Generation with a cache is generation without one, and its text is what tokens say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import LANGUAGE_MODELS, VOCAB, make, tokens

import data
from data.tokenizers import Bytes, Words
from decoding.filters import Filters, filtered
from decoding.sampling import Rules
from errors import ConfigError
from tasks.generation import Generator, begin, go_on, mixed

NEW, WIDTH = 6, 5
LENGTHS = np.array([4, 5, 1], np.int32)
SEEDS = np.array([[5, 6], [5, 0], [9, 2]], np.uint32)
RULES = Rules(data.EOS, data.PAD, (data.PAD, data.BOS))


@functools.partial(jax.jit, static_argnums=0)
def next_token(model, variables, tokens_RT, length_R, seed_R, place_R, filters):
    """The next token of each row from a pass over all of its tokens, without any carry."""
    segments_RT = None
    if getattr(model, "bidirectional_prefix", False):  # the prompt is the prefix
        in_prompt_RT = jnp.arange(tokens_RT.shape[1]) < (length_R - place_R)[:, None]
        segments_RT = jnp.where(in_prompt_RT, -1, 1)
    logits_RTV = model.apply(variables, tokens_RT, segments_RT)
    logits_RV = logits_RTV[jnp.arange(len(length_R)), length_R - 1]
    logits_RV = logits_RV.at[:, jnp.array(RULES.banned)].set(-jnp.inf)
    logits_RV = filtered(logits_RV, filters)

    def noise(seed, place):
        key = jax.random.fold_in(jax.random.key(seed), place)
        return jax.random.gumbel(key, (VOCAB,))

    return (logits_RV + jax.vmap(noise)(seed_R, place_R)).argmax(-1)


def without_cache(model, variables, prompts_BT, filters) -> list[list[int]]:
    rows = [list(prompts_BT[b, :length]) for b, length in enumerate(LENGTHS) for _ in SEEDS[0]]
    starts, ended = [len(row) for row in rows], [False] * len(rows)
    for place in range(NEW):
        tokens_RT = np.zeros((len(rows), WIDTH + NEW), np.int32)
        for r, row in enumerate(rows):
            tokens_RT[r, : len(row)] = row
        length_R = np.array([len(row) for row in rows])
        place_R = np.full(len(rows), place)
        seeds_R = SEEDS.reshape(-1)
        found = next_token(model, variables, tokens_RT, length_R, seeds_R, place_R, filters)
        for r, token in enumerate(np.asarray(found)):
            if not ended[r]:
                rows[r].append(int(token))
                ended[r] = token == data.EOS
    return [[int(t) for t in row[start:]] for row, start in zip(rows, starts, strict=True)]


def with_cache(model, variables, prompts_BT, filters) -> list[list[int]]:
    options = {"max_new": NEW, "rules": RULES}
    samples = begin(model, variables, prompts_BT, LENGTHS, SEEDS, filters, **options)
    samples = go_on(model, variables, samples, filters, NEW, rules=RULES)
    pairs = zip(samples.tokens_RT.tolist(), samples.length_R, strict=True)
    return [tokens_T[:length] for tokens_T, length in pairs]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_with_and_without_a_cache_the_tokens_are_the_same(name):
    """Ragged prompts, two samples each; drawn, and the most probable (top_k of 1)."""
    model, variables = make(LANGUAGE_MODELS[name])
    prompts_BT = tokens(len(LENGTHS), WIDTH)
    drawn = []
    for top_k in (VOCAB, 1):
        filters = Filters(temperature=1.5, top_k=top_k)
        found = with_cache(model, variables, prompts_BT, filters)
        assert found == without_cache(model, variables, prompts_BT, filters)
        drawn.append(found)
    assert drawn[0] != drawn[1]
    assert drawn[1][::2] == drawn[1][1::2], "the most probable token has no seed"


def words_generator(**options) -> Generator:
    """A random Transformer whose vocabulary is nine letters as words."""
    tokenizer = Words.train(["a b c d e f g h i"])
    model, variables = make(LANGUAGE_MODELS["transformer"])
    assert tokenizer.vocab_size == VOCAB
    return Generator(model, variables, tokenizer, max_new_tokens=12, **options)


PROMPTS = ["a b c", "", "d", "a b c", "e f g h i a b c d"]


def test_samples_do_not_depend_on_the_batch():
    together = words_generator().generate(PROMPTS, 3, seed=7)
    num_cases = 0
    for batch_size in (1, 4):
        apart = words_generator(batch_size=batch_size).generate(PROMPTS[:3], 3, seed=7)
        for one, other in zip(apart, together, strict=False):
            assert [sample.ids for sample in one] == [sample.ids for sample in other]
            num_cases += len(one)
    print(f"{num_cases} samples")
    assert together[0] == together[3]
    assert [sample.seed for sample in together[0]] == [7, 8, 9]
    (later,) = words_generator().generate(PROMPTS[:1], 1, seed=9)
    assert later[0].ids == together[0][2].ids
    for samples in together:
        for sample in samples:
            ended = sample.end == "eos"
            words = ["\u2047" if i == data.UNK else chr(93 + i) for i in sample.ids]
            assert sample.text.split() == words
            assert len(sample.log_probs) == len(sample.ids) + ended


def test_each_prompt_has_noise_of_its_own():
    seeds = range(2**32 - 500, 2**32)
    drawn = {seed for last in range(40) for seed in mixed([data.BOS, 7, last], seeds)}
    assert len(drawn) > 0.999 * 40 * len(seeds)
    assert len(set(mixed([data.BOS], seeds))) == len(seeds)
    assert max(drawn) < 2**32


def test_a_stream_is_the_text_in_pieces():
    generator = words_generator(stop=("g h", "i"))
    num_pieces = 0
    for seed in range(6):
        (samples,) = generator.generate(["a b"], 1, seed)
        pieces = list(generator.stream("a b", seed))
        assert "".join(pieces) == samples[0].text
        num_pieces += sum(map(bool, pieces))
    assert num_pieces > 12


def test_stop_words_end_the_text():
    """Also where no token ends in them: "f g" is two words, "a b" has a part of both."""
    free = words_generator().generate(["c"], 12)[0]
    stop = ("e f", "g", " a b", "unknown")
    cut = words_generator(stop=stop).generate(["c"], 12)[0]
    for whole, sample in zip(free, cut, strict=True):
        places = [whole.text.find(word) for word in stop if word in whole.text]
        if places:
            assert (sample.text, sample.end) == (whole.text[: min(places)], "stop")
            assert sample.ids == whole.ids[: len(sample.ids)]
            assert len(sample.ids) == len(sample.log_probs) == len(sample.drawn_log_probs)
        else:
            assert sample == whole
    ends = {sample.end for sample in cut}
    assert {"stop"} < ends, ends


def test_a_prompt_beyond_the_learned_positions_is_cut_to_its_end():
    block = LANGUAGE_MODELS["transformer"] | {"positions": "learned", "max_positions": 20}
    tokenizer = Words.train(["a b c d e f g h i"])
    model, variables = make(block)
    generator = Generator(model, variables, tokenizer, max_new_tokens=12)
    assert generator.longest_prompt == 7
    assert generator.encode(["a b c d e f g h i"]) == [
        [data.BOS, *tokenizer.encode("c d e f g h i")]
    ]
    (long,), (short,) = generator.generate(["a b c d e f g h i", "c d e f g h i"])
    assert long == short
    with pytest.raises(ConfigError, match="the model has 20 positions, got 19"):
        Generator(model, variables, tokenizer, max_new_tokens=19)


def test_two_sided_prompts_are_sources():
    generator = words_generator(two_sided=True)
    assert generator.encode(["a b"]) == [[data.BOS, 4, 5, data.BOS]]


class Endless:
    """No model."""

    def longest_row(self) -> None:
        return None


class Scripted(Generator):
    """Writes given bytes one after another."""

    def __init__(self, text: bytes, stop=()) -> None:
        self.script = [byte + 4 for byte in text] + [data.EOS]
        super().__init__(Endless(), None, Bytes(), stop=stop, max_new_tokens=len(self.script))

    def _start(self, rows, seeds, size):
        return self._until(None, 1)

    def _until(self, samples, length):
        from types import SimpleNamespace as Samples

        tokens_RT = np.array([self.script[:length]])
        return Samples(tokens_RT=tokens_RT, ended_R=np.array([length == len(self.script)]))


STREAMS = [
    ("aé€🙂b".encode(), (), ["a", "é", "€", "🙂", "b"]),
    (b"a\xffb\xe2\x82", (), ["a", "\ufffdb"]),
    (b"one END two", (" END",), [*"one"]),
    (b"one EN two ENDS", ("END",), [*"one", " ", "EN ", *"two", " "]),
    ("aé§".encode(), ("é§x",), ["a", "é§"]),
]


@pytest.mark.parametrize(("text", "stop", "pieces"), STREAMS)
def test_only_what_is_final_is_told(text, stop, pieces):
    """No character is cut, and nothing of a stop word is out before it is known to be none."""
    assert [piece for piece in Scripted(text, stop).stream("") if piece] == pieces
