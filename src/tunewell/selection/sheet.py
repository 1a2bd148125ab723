"""A file of rows to label, as `tunewell select` writes it: read, changed one label at a time, saved whole at once."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path
from typing import Any

from tunewell.data.cells import Rows
from tunewell.errors import DataError
from tunewell.results import write_whole

COLUMN = "label"


class Sheet:
    """Rows with a text and a label that may be empty. Safe to use from several threads.

    Args:
        path: CSV or JSONL; the column `label` is added where it is missing.
        text: the column with the text; by default as tunewell infers it.
        labels: classes in this order; those that the file holds or predicts are added.

    Raises:
        DataError: no such file, another format, no text.
    """

    def __init__(self, path: str, *, text: str | None = None, labels: tuple[str, ...] = ()) -> None:
        self.path, self._lock = Path(path), threading.Lock()
        if self.path.suffix.lower() not in (".csv", ".jsonl"):
            raise DataError(
                f"cannot label {self.path.suffix or 'a file without an ending'} in place",
                where=path,
                expected=".csv or .jsonl, as `tunewell select -o to-label.csv` writes them",
            )
        self.columns, self.rows = self._read()
        if not self.rows:
            raise DataError("no rows", where=path, expected="rows to label")
        self.text = text or self._text_column()
        if self.text not in self.columns:
            raise DataError(f"no column `{self.text}`", where=path, expected="one of: " + ", ".join(self.columns))
        if COLUMN not in self.columns:
            self.columns.append(COLUMN)
        found = [str(r.get(c) or "").strip() for c in (COLUMN, "prediction") for r in self.rows]
        self.labels = list(dict.fromkeys([*labels, *sorted({f for f in found if f})]))

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        try:
            content = self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise DataError("no such file", where=str(self.path), expected="a file of rows to label") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {error}", where=str(self.path), expected="a UTF-8 file") from None
        self._mark = self.path.read_bytes()[:3] == b"\xef\xbb\xbf"
        if self.path.suffix.lower() == ".csv":
            reader = Rows(io.StringIO(content, newline=""))
            rows: list[dict[str, Any]] = []
            for i, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    raise DataError(
                        "a row with more or fewer cells than the header", where=f"{self.path}:{i}",
                        expected=f"{len(reader.columns)} cells", remedy="mend the row",
                    )  # fmt: skip
                rows.append(dict(row))
            return reader.columns, rows
        rows = []
        for i, line in enumerate(content.split("\n"), 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise DataError("is not a JSON object", where=f"{self.path}:{i}", expected='{"text": ...} on each line')
            rows.append(found)
        return list(dict.fromkeys(k for row in rows for k in row)), rows

    def _text_column(self) -> str:
        from datasets import Dataset

        from tunewell.data.columns import text_column

        few = [{c: str(r.get(c) or "") for c in self.columns} for r in self.rows[:200]]
        besides = [COLUMN, "row", "rank", "prediction", "probability", "score", "method"]
        return text_column(Dataset.from_list(few), source=str(self.path), besides=besides)

    @property
    def done(self) -> int:
        """Rows that have a label."""
        return sum(bool(str(r.get(COLUMN) or "").strip()) for r in self.rows)

    def show(self, i: int) -> dict[str, Any]:
        """What the page needs of row i.

        Raises:
            IndexError: no such row.
        """
        if not 0 <= i < len(self.rows):
            raise IndexError(i)
        row = self.rows[i]
        try:
            probability = float(row.get("probability") or "nan")
        except (TypeError, ValueError):
            probability = float("nan")
        return {
            "i": i,
            "text": str(row.get(self.text) or ""),
            "label": str(row.get(COLUMN) or "").strip(),
            "prediction": str(row.get("prediction") or "").strip(),
            "probability": None if probability != probability else probability,
        }

    def set(self, i: int, label: str) -> None:
        """Give row i a label (empty: take it away) and save the file.

        Raises:
            IndexError: no such row. DataError: a label with a line break. RunFolderError: the file cannot be
            written; the label is then taken back.
        """
        label = label.strip()
        if not 0 <= i < len(self.rows):
            raise IndexError(i)
        if any(c in label for c in "\r\n") or len(label) > 200:
            raise DataError("not a label", where=f"{self.path}:{i + 1}", expected="one line of up to 200 characters")
        with self._lock:
            before = self.rows[i].get(COLUMN, "")
            self.rows[i][COLUMN] = label
            try:
                self._save()
            except BaseException:
                self.rows[i][COLUMN] = before
                raise
            if label and label not in self.labels:
                self.labels.append(label)

    def next_empty(self, after: int) -> int | None:
        """The first row without a label behind `after`, then from the top; None when all have one."""
        n = len(self.rows)
        for step in range(1, n + 1):
            i = (after + step) % n
            if not str(self.rows[i].get(COLUMN) or "").strip():
                return i
        return None

    def _save(self) -> None:
        if self.path.suffix.lower() == ".csv":
            buffer = io.StringIO()
            writer = csv.DictWriter(buffer, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
            content = ("\ufeff" if self._mark else "") + buffer.getvalue()
        else:
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
        write_whole(self.path, content)
