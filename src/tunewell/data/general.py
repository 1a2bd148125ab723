"""General text for distillation: the user's own file, or packaged sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tunewell.errors import DataError

LINES = (".txt", ".text")


def general_texts(source: str | None, n: int, *, seed: int) -> list[str]:
    """At most `n` texts, chosen by `seed`, empty ones left out.

    Args:
        source: a file with one text a line (.txt), any data file with a text column, or None for the
            packaged sentences (see `tunewell.data.packaged.general_sentences`).

    Raises:
        DataError: no such file, or fewer than 16 texts in it.
    """
    if source is None:
        from tunewell.data.packaged import general_sentences

        return general_sentences(n, seed)
    if source.lower().endswith(LINES):
        path = Path(source)
        if not path.is_file():
            raise DataError("no such file", where=source, expected="a file with one text a line, or a data file")
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    else:
        from tunewell.data.columns import text_column
        from tunewell.data.load import load

        file = load(source)
        texts = [str(t) for t in file.dataset[text_column(file.dataset, source=file.source)] if t is not None]
    texts = [t.strip() for t in texts if t.strip()]
    if len(texts) < 16:
        raise DataError(f"only {len(texts)} general texts", where=source, expected="at least 16, better a few thousand")
    if len(texts) > n:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:n])
        texts = [texts[i] for i in chosen]
    return texts
