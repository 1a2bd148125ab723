"""Benchmarks: one file a published claim. They measure and print; they assert nothing."""
