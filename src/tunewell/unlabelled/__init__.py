"""More from texts without labels: what is tried, and used only where it helps; see `stages/unlabelled.py`."""

METHODS = ("self_training", "propagation", "pretraining", "consistency")
WITHOUT = "without"  # the candidate that no text without a label has had a part in
