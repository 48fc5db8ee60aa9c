"""What a trained model does inside: its attention, its heads, its alignments."""
