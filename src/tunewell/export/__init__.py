"""What goes out with a model."""
