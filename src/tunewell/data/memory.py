"""Rows that are in memory already: X and y as scikit-learn's users hold them, as texts and targets."""

# ruff: noqa: N803  (X is scikit-learn's name)

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

WANTED = "a list of texts, or of (text, second text) pairs"


class InputError(DataError, ValueError):
    """X or y is not what an estimator takes; also a ValueError, as scikit-learn's own checks raise."""


def texts_of(X: Any) -> tuple[list[str], list[str] | None]:
    """Texts, and second texts where X holds pairs.

    Raises:
        InputError: with the place of the first row that is no text.
    """
    if isinstance(X, (str, bytes, dict)) or X is None:
        raise InputError(f"X is a {type(X).__name__}", where="X", expected=WANTED, remedy="put it into a list: [text]")
    try:
        rows = X.to_numpy() if hasattr(X, "to_numpy") else X if isinstance(X, np.ndarray) else list(X)
    except TypeError:
        raise InputError(f"X is a {type(X).__name__}", where="X", expected=WANTED) from None
    if isinstance(rows, np.ndarray):
        if rows.ndim != 1 and (rows.ndim != 2 or rows.shape[1] not in (1, 2)):
            raise InputError(f"X has the shape {rows.shape}", where="X", expected=f"{WANTED}: (n,), (n, 1) or (n, 2)")
        rows = rows.ravel().tolist() if rows.ndim == 1 or rows.shape[1] == 1 else rows.tolist()
    if not rows:
        raise InputError("X holds no rows", where="X", expected="at least one text")
    if not isinstance(rows[0], (tuple, list, np.ndarray)):
        return [_text(row, f"X[{i}]") for i, row in enumerate(rows)], None
    for i, row in enumerate(rows):
        if not isinstance(row, (tuple, list, np.ndarray)) or len(row) != 2:
            found = f"{len(row)} entries" if isinstance(row, (tuple, list, np.ndarray)) else f"a {type(row).__name__}"
            raise InputError(f"X[{i}] is {found}", where="X", expected="(text, second text), as X[0] is a pair")
    first, second = zip(*rows, strict=True)
    return (
        [_text(t, f"X[{i}][0]") for i, t in enumerate(first)],
        [_text(t, f"X[{i}][1]") for i, t in enumerate(second)],
    )


def _text(value: Any, place: str) -> str:
    if isinstance(value, str):
        return str(value)
    missing = _missing(value)
    found = "missing" if missing else f"a {type(value).__name__}"
    remedy = 'leave missing texts out, or fill them with ""' if missing else "decode bytes, or make texts with str(…)"
    raise InputError(f"{place} is {found}", where="X", expected="a text (str)", remedy=remedy)


def _missing(value: Any) -> bool:
    """None, NaN, NaT and pandas' NA."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def target_of(y: Any) -> np.ndarray:
    """y as an array; a column (n, 1) is flattened with a warning, rows of unequal lengths become lists.

    Raises:
        InputError: y is missing, no array, or has missing entries.
    """
    from sklearn.exceptions import DataConversionWarning

    if hasattr(y, "toarray"):  # a sparse 0/1 matrix
        y = y.toarray()
    try:
        array = np.asarray(y)
    except ValueError:  # rows of unequal lengths
        array = np.fromiter(y, dtype=object, count=len(y))
    if y is None or array.ndim == 0:
        found = "missing" if y is None else f"a {type(y).__name__}"
        raise InputError(f"y is {found}", where="y", expected="a label for each text")
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; use y.ravel()",
            DataConversionWarning,
            stacklevel=3,
        )
        array = array.ravel()
    if array.ndim == 1:
        for i, value in enumerate(array):
            if _missing(value):
                raise InputError(f"y[{i}] is missing", where="y", expected="a label for each text")
        if array.dtype == object and len({type(v) for v in array}) == 1 and isinstance(array[0], (bool, int, str)):
            array = np.asarray(array.tolist())  # what pandas kept as objects
    return array


def kind_of(y: np.ndarray) -> str:
    """What scikit-learn calls this kind of target; "unknown" for lists of labels."""
    from sklearn.utils.multiclass import type_of_target

    if y.dtype != object:
        return type_of_target(y)
    several = y.ndim != 1 or any(isinstance(v, (list, tuple, set, dict, np.ndarray)) for v in y)
    return "unknown" if several else "multiclass"


def rows_of(texts: list[str], pairs: list[str] | None, labels: list[Any]) -> Dataset:
    """Canonical rows: labels are strings, lists of strings (several a row) or floats; `row` counts from 1."""
    from datasets import Dataset, Features, Value
    from datasets import List as ListOf

    kinds = {str: Value("string"), list: ListOf(Value("string")), float: Value("float64")}
    columns: dict[str, list[Any]] = {"text": texts} | ({"text_pair": pairs} if pairs is not None else {})
    columns |= {"label": labels, "row": list(range(1, len(texts) + 1)), "source": ["X"] * len(texts)}
    features = dict.fromkeys(columns, Value("string")) | {"label": kinds[type(labels[0])], "row": Value("int64")}
    return Dataset.from_dict(columns, features=Features(features))
