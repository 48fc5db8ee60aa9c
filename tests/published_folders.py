"""Folders as Hugging Face's save_pretrained() leaves them: tiny, random, made without PyTorch."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import sentencepiece
import tokenizers
from pretrained_cases import CASES, completed
from tokenizer_cases import TEXTS
from tokenizers import decoders, normalizers, pre_tokenizers, trainers

import models
from data.hugging_face import HuggingFace
from data.tensor_files import write_file
from models.pretrained import FAMILIES, Ids
from trees import named_leaves

SPECIAL = {
    "gpt2": ["<|endoftext|>"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "bart": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "openai-gpt": ["<unk>"],
}
NAMES = ("gpt2", "openai-gpt", "bert", "roberta", "bart", "t5", "marian")


def write_tokenizer(folder: Path, name: str, kind: str = "vocabulary") -> int:
    """Writes vocabulary files, or for kind "json" tokenizer.json; returns how many ids it has."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "t5":
        size = _sentence_pieces(folder / "spiece.model", {"pad_id": 0, "eos_id": 1, "unk_id": 2})
        return size + 100
    if name == "marian":
        return _marian(folder)
    cutter, trainer = _untrained(name)
    cutter.train_from_iterator(TEXTS, trainer)
    if kind == "json":
        cutter.save(str(folder / "tokenizer.json"))
    else:
        cutter.model.save(str(folder))
    return cutter.get_vocab_size()


def _untrained(name: str) -> tuple:
    options = {"special_tokens": SPECIAL[name], "show_progress": False}
    if name == "bert":
        cutter = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        cutter.normalizer = normalizers.BertNormalizer(lowercase=True)
        cutter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        cutter.decoder = decoders.WordPiece(prefix="##")
        return cutter, trainers.WordPieceTrainer(vocab_size=300, **options)
    if name == "openai-gpt":
        suffix = {"end_of_word_suffix": "</w>"}
        cutter = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", **suffix))
        cutter.normalizer = normalizers.BertNormalizer(lowercase=True)
        cutter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        cutter.decoder = decoders.BPEDecoder(suffix="</w>")
        return cutter, trainers.BpeTrainer(vocab_size=300, **options, **suffix)
    cutter = tokenizers.Tokenizer(tokenizers.models.BPE())
    cutter.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cutter.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return cutter, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, **options)


def _sentence_pieces(path: Path, ids: dict[str, int], texts=TEXTS) -> int:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=260,
        hard_vocab_limit=False,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
        **ids,
    )
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()


def _marian(folder: Path) -> int:
    pieces = set()
    for side, texts in (("source", TEXTS), ("target", TEXTS[::2])):
        path = folder / f"{side}.spm"
        size = _sentence_pieces(path, {"unk_id": 0, "eos_id": 1}, texts)
        cutter = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pieces |= {cutter.id_to_piece(i) for i in range(2, size)}
    tokens = ["</s>", "<unk>", *sorted(pieces), ">>fra<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "it"}))
    return len(tokens)


def config_of(name: str, vocab_size: int) -> dict:
    """config.json of a case with as many ids."""
    ends = {"gpt2": 0, "openai-gpt": None, "t5": 1, "bart": 2, "marian": 0}
    pads = {"gpt2": None, "openai-gpt": None, "bert": 0, "roberta": 1, "t5": 0, "bart": 1}
    pads["marian"] = vocab_size - 1
    starts = {"t5": 0, "bart": 2, "marian": pads["marian"]}
    config = {
        **CASES[name][1],
        "model_type": name,
        "vocab_size": vocab_size,
        "bos_token_id": 0 if name in ("gpt2", "bart", "roberta") else None,
        "eos_token_id": ends.get(name),
        "pad_token_id": pads[name],
        "is_encoder_decoder": name in starts,
    }
    return config | ({"decoder_start_token_id": starts[name]} if name in starts else {})


def make_folder(folder: Path, name: str, kind: str = "vocabulary") -> Path:
    """A folder with config.json, model.safetensors and a tokenizer."""
    num_unused = 0 if name == "marian" else 3  # rows of no token; Marian's last is padding
    config = config_of(name, write_tokenizer(folder, name, kind) + num_unused)
    (folder / "config.json").write_text(json.dumps(config))
    family, tokenizer = FAMILIES[name], HuggingFace.from_folder(folder, config)
    block = completed(family.block(config, {}) | {"unwritten": tokenizer.copies})
    model = models.build(block, tokenizer.vocab_size)
    shapes = named_leaves(jax.eval_shape(lambda: models.init(model, jax.random.key(0)))["params"])
    random = np.random.default_rng(0)
    params = {k: random.normal(size=v.shape).astype(np.float32) / 4 for k, v in shapes.items()}
    ids = Ids(tokenizer.theirs, tokenizer.copies)
    write_file(folder / "model.safetensors", family.write(params, block, ids))
    return folder
