"""How good a model is, how sure that is, and whether it beats cheap baselines beyond chance."""
