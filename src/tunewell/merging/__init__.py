"""Several tuned models made into one without training: `tunewell merge`."""
