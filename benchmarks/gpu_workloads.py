"""Shapes that fill one large GPU, and tiny ones that run anywhere."""

from analysis.chips import gpu_flops
from benchmarks.workloads import Workload, lstm_attention
from configs.base import BERT, GPT, SEQ2SEQ

# Vocabularies that are no multiple of 64 are filled up to one, on both sides: tensor cores take
# nothing else at full speed.
FULL = {
    "transformer_base": Workload(
        "Transformer base, 6+6 layers, d 512, V 37056, B 128, S = T = 128",
        SEQ2SEQ["transformer-base"],
        vocab_size=37056,
        rows=128,
        source_length=128,
        target_length=128,
        label_smoothing=0.1,
    ),
    "gpt2_small": Workload(
        "GPT-2 small, V 50304, B 32, T 1024",
        GPT["gpt2-small"],
        vocab_size=50304,
        rows=32,
        source_length=0,
        target_length=1024,
    ),
    "bert_base": Workload(
        "BERT base, V 30528, B 256, T 128, 19 places hidden",
        BERT["bert-base"],
        vocab_size=30528,
        rows=256,
        source_length=0,
        target_length=128,
        hidden=19,
    ),
    "lstm_attention": Workload(
        "LSTM with additive attention, 4+4 layers of 1024, V 32768, B 256, S = T = 32",
        lstm_attention(1024, layers=4),
        vocab_size=32768,
        rows=256,
        source_length=32,
        target_length=32,
        label_smoothing=0.1,
    ),
}

_NARROW = {"d_model": 16, "num_heads": 2, "d_ff": 32}


def _tiny(title: str, block: dict, source_length: int, hidden: int = 0) -> Workload:
    return Workload(f"{title}, tiny", block, 32, 8, source_length, 8, hidden=hidden)


TINY = {
    "transformer_base": _tiny("Transformer", SEQ2SEQ["transformer-tiny"] | _NARROW, 8),
    "gpt2_small": _tiny("GPT-2", GPT["gpt2-tiny"] | _NARROW, 0),
    "bert_base": _tiny("BERT", BERT["bert-tiny"] | _NARROW, 0, hidden=2),
    "lstm_attention": _tiny("LSTM with additive attention", lstm_attention(16, layers=2), 8),
}


def utilisation(flops: float, seconds: float, device_name: str, num_devices: int = 1) -> str:
    """Model FLOPs over the peak (Chowdhery et al. 2022) in per cent, or the bare rate."""
    peak, rate = gpu_flops(device_name), flops / seconds / num_devices
    if peak is None:
        return f"{rate / 1e12:.3g} TFLOP/s, peak of {device_name!r} not known"
    return f"{100 * rate / peak:.1f} %"
