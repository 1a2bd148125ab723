"""Which rows of a pool of instructions or translations to tune on: by gradients towards a target, by likelihood."""

LESS, IFD, PERPLEXITY, RANDOM, AUTO = "less", "ifd", "perplexity", "random", "auto"
METHODS = (LESS, IFD, PERPLEXITY, RANDOM, AUTO)
