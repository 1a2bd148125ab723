"""Why the model answers so: which words decided, and whether that explanation is true."""
