"""The Transformer: one block and one stack, from which every family here is built."""
