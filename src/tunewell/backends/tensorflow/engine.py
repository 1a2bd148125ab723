"""TensorFlow itself: there or not, quiet, and on as many threads as asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from tunewell.extras import need


def tensorflow(where: str, threads: int | None = None) -> Any:
    """The module, imported at the first call.

    Args:
        where: what asks for it, for the error. threads: of one operation; heard before anything is computed.

    Raises:
        TunewellError: it is not installed, with the line that installs it.
    """
    need("tensorflow", where)
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _greetings_unheard():
            import tensorflow  # noqa: F401
    import tensorflow as tf

    if threads:
        with contextlib.suppress(RuntimeError):  # it has computed already
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


@contextlib.contextmanager
def _greetings_unheard() -> Iterator[None]:
    """What the libraries say of themselves as they are loaded goes past Python, to the descriptor itself."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
