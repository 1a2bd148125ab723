"""One local web app over all runs beneath a folder: `tunewell ui`."""
