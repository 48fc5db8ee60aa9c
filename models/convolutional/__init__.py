"""Convolution over time: an encoder for the recurrent decoder, and ConvS2S."""
