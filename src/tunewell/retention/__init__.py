"""Retention: what a model knows beside its task, measured before and after tuning."""
