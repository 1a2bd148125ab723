"""The stages of a run, in the order in which `tunewell.run` tells them."""
