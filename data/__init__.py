"""Text pairs, tokenizers and batches: numpy in, numpy out.

source = build_source({"name": "bible"}, data_dir)
tokenizer = build_tokenizer({"name": "bpe", "vocab_size": 4000}, source, data_dir)
batches = PairBatches(source, tokenizer, data_dir, seed=0, tokens_per_batch=2048, ...)
batches.batch("train", step)
"""

from data.batching import Batches, check_ids
from data.build import TOKENIZERS, build_source, build_tokenizer, load_tokenizer
from data.corruption import CLS, MASK, SENTINELS, SEP
from data.denoising_batches import DenoisingBatches, PrefixBatches
from data.labelled_batches import LabelledBatches
from data.language_batches import LanguageBatches
from data.masked_batches import MaskedBatches
from data.pair_batches import PairBatches
from data.prefetch import prefetch
from data.sources import SOURCES, SPLITS, Example, Source
from data.spelling import spellings
from data.stream_batches import StreamBatches
from data.tokenizers import BOS, EOS, PAD, UNK, Tokenizer

__all__ = [
    "BOS",
    "CLS",
    "EOS",
    "MASK",
    "PAD",
    "SENTINELS",
    "SEP",
    "SOURCES",
    "SPLITS",
    "TOKENIZERS",
    "UNK",
    "Batches",
    "DenoisingBatches",
    "Example",
    "LabelledBatches",
    "LanguageBatches",
    "MaskedBatches",
    "PairBatches",
    "PrefixBatches",
    "Source",
    "StreamBatches",
    "Tokenizer",
    "build_source",
    "build_tokenizer",
    "check_ids",
    "load_tokenizer",
    "prefetch",
    "spellings",
]
