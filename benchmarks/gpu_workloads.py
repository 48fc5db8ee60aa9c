"""Shapes that fill one large GPU, tiny ones that run anywhere, and peaks of known devices."""

from benchmarks.workloads import Workload, lstm_attention, transformer_lm, transformer_seq2seq

# Dense bfloat16 (float16 for V100 and T4) in FLOP/s, from the makers' data sheets. The first
# name that is part of the device's own name counts.
PEAK_FLOPS = {
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
}

FULL = {
    "transformer_seq2seq": Workload(
        "Encoder-decoder, d 1024, 6+6 layers, V 32768, B 128, S = T = 128",
        transformer_seq2seq(1024, 16, 6),
        vocab_size=32768,
        rows=128,
        source_length=128,
        target_length=128,
        label_smoothing=0.1,
    ),
    "transformer_lm": Workload(
        "LM, d 1024, 12 layers, V 32768, B 16, T 1024",
        transformer_lm(1024, 16, 12),
        vocab_size=32768,
        rows=16,
        source_length=0,
        target_length=1024,
    ),
    "lstm_attention": Workload(
        "LSTM with additive attention, H 1024, V 32768, B 256, S = T = 32",
        lstm_attention(1024),
        vocab_size=32768,
        rows=256,
        source_length=32,
        target_length=32,
        label_smoothing=0.1,
    ),
}


def _tiny(title: str, block: dict, source_length: int) -> Workload:
    return Workload(f"{title}, tiny", block, 32, 8, source_length, 8)


TINY = {
    "transformer_seq2seq": _tiny("Encoder-decoder", transformer_seq2seq(16, 2, 1), 8),
    "transformer_lm": _tiny("LM", transformer_lm(16, 2, 1), 0),
    "lstm_attention": _tiny("LSTM with additive attention", lstm_attention(16), 8),
}


def peak_flops(device_name: str) -> float | None:
    """Peak of a device by its name, or None for one that is not in the table."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device_name), None)


def utilisation(flops: float, seconds: float, device_name: str, num_devices: int = 1) -> str:
    """Model FLOPs over the peak (Chowdhery et al. 2022) in per cent, or the bare rate."""
    peak, rate = peak_flops(device_name), flops / seconds / num_devices
    if peak is None:
        return f"{rate / 1e12:.3g} TFLOP/s, peak of {device_name!r} not known"
    return f"{100 * rate / peak:.1f} %"
