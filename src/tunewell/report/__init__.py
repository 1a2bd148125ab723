"""The page for people: made from records alone, never from a model."""
