"""The data check: what is wrong with labelled rows, with counts, examples and remedies. Nothing is dropped here."""

from tunewell.data.check.checker import check
from tunewell.data.check.render import render

__all__ = ["check", "render"]
