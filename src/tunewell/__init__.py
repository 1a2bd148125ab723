"""tunewell: fine-tune pretrained language models, and know what it cost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
# where bitsandbytes is installed, transformers imports it, and it speaks of faster kernels that it looks for
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from tunewell.curve.run import learning_curve
    from tunewell.errors import TunewellError
    from tunewell.estimators import TextClassifier, TextRegressor
    from tunewell.meta import meta
    from tunewell.rank import rank
    from tunewell.run import Run, load_run, run
    from tunewell.selection.run import Selection, select
    from tunewell.sequence.extend import continue_run
    from tunewell.sequence.run import Sequence, load_sequence, run_sequence

_PLACES = {
    "run": "tunewell.run",
    "rank": "tunewell.rank",
    "meta": "tunewell.meta",
    "Run": "tunewell.run",
    "load_run": "tunewell.run",
    "Sequence": "tunewell.sequence.run",
    "load_sequence": "tunewell.sequence.run",
    "run_sequence": "tunewell.sequence.run",
    "continue_run": "tunewell.sequence.extend",
    "learning_curve": "tunewell.curve.run",
    "Selection": "tunewell.selection.run",
    "select": "tunewell.selection.run",
    "TextClassifier": "tunewell.estimators",
    "TextRegressor": "tunewell.estimators",
    "TunewellError": "tunewell.errors",
}
__all__ = [
    "Run",
    "Selection",
    "Sequence",
    "TextClassifier",
    "TextRegressor",
    "TunewellError",
    "__version__",
    "continue_run",
    "learning_curve",
    "load_run",
    "load_sequence",
    "meta",
    "rank",
    "run",
    "run_sequence",
    "select",
]


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that `import tunewell` stays light."""
    if name in _PLACES:
        from importlib import import_module

        module = import_module(_PLACES[name])
        return module if name in ("run", "rank", "meta") else getattr(module, name)  # callable modules: see their ends
    raise AttributeError(f"module 'tunewell' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
