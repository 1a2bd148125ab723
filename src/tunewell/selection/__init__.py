"""Which rows to label next: chosen from a pool without labels, written for people to fill in, read back."""
