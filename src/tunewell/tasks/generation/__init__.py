"""Answers that a model writes: instruction tuning of decoders, translation by decoders and encoder-decoders."""
