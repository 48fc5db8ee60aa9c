"""Texts and options for the tests of tokenizers."""

ODD_TEXTS = (
    "Perché l'anima mia è così turbata?",
    "naïve cafe\u0301 Ångström",  # one accent composed, one combining
    "日本語のテキスト、句読点。",
    "中文没有空格",
    "שלום עולם",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645",
    "हिन्दी में पाठ",
    "🙂 👩‍👩‍👧 🇮🇹",
    "ﬁne ½ ① ﾊﾝｶｸ",  # what NFKC rewrites
    "1 2 + 34 = 46",
    "<s> </s> <pad> <unk> [MASK]",  # text that looks like a special token
    "a\u00a0b\u2009c",
)


TEXTS = [*ODD_TEXTS, *(f"the cat number {i} sat on the mat {i * i}" for i in range(60))]
OPTIONS = {
    "bpe": {"vocab_size": 450},
    "unigram": {"vocab_size": 450},
    "words": {"vocab_size": 300},
    "characters": {"vocab_size": 300},
    "bytes": {},
}
NAMES = sorted(OPTIONS)
SUBWORDS = ("bpe", "unigram")
