"""Translators' files as rows: gettext catalogues (.po) and translation memories (.tmx).

Both are read as data: no entity of an XML file is expanded beyond the five of XML itself, no file that one names is
opened, and lengths are bounded.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any
from xml.parsers import expat

from tunewell.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

MOST_BYTES = 1 << 30
MOST_SEGMENT = 1_000_000  # characters
DEEPEST = 64  # nested elements
_PO_LINE = re.compile(r'\s*(#.*|((msgctxt|msgid|msgid_plural|msgstr(\[\d+\])?)\s*)?"(\\.|[^"\\])*"\s*|\s*)')
_CHARSET = re.compile(rb"charset=([\w.\-]+)")
Rows = list[dict[str, str | None]]


def read(kind: str, opener: Callable[[], IO[bytes]], source: str) -> tuple[Dataset, list[str]]:
    """The rows of a "po" or "tmx" file, and what was skipped, in sentences.

    Raises:
        DataError: damaged, too large, or without one translated entry.
    """
    from datasets import Dataset

    with opener() as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"is larger than {MOST_BYTES >> 20:,} MB",
            where=source,
            expected="a file that fits in memory",
            remedy="split it, or write its pairs as JSONL",
        )
    content = content.removeprefix(codecs.BOM_UTF8) if kind == "po" else content
    rows, skipped = (read_po if kind == "po" else read_tmx)(content, source)
    reasons = ", ".join(f"{count:,} {what}" for what, count in skipped.items() if count)
    if not rows:
        raise DataError(
            "has no translated entry" + (f" ({reasons})" if reasons else ""),
            where=source,
            expected="at least one entry with a source and a translation",
        )
    names = list(dict.fromkeys(name for row in rows for name in row))
    dataset = Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    return dataset, [f"{source}: skipped {reasons}"] if reasons else []


# ---------------------------------------------------------------- gettext


def read_po(content: bytes, source: str) -> tuple[Rows, Counter[str]]:
    """Rows with source, target and context of a gettext catalogue, and what was skipped.

    Fuzzy, obsolete and untranslated entries are skipped. Of an entry with plural forms two rows are made: the
    singular with the first form, the plural with the last (the plural alone where a language has one form).

    Raises:
        DataError: a line that is no gettext, or another encoding than the header says.
            Or Babel is not installed.
    """
    try:
        from babel.messages.pofile import read_po as read_catalogue
    except ImportError:
        raise DataError(
            "reading gettext catalogues needs the package babel",
            where=source,
            remedy="pip install 'tunewell[generate]'",
        ) from None

    _check_po(content, source)
    try:
        catalogue = read_catalogue(io.BytesIO(content), abort_invalid=True)
    except Exception as error:  # PoFileError, and what its parsers of dates, plurals and locales raise
        raise DataError(
            f"is no gettext catalogue: {str(error)[:200] or type(error).__name__}", where=source,
            expected="entries of msgid and msgstr, and a header with charset and Plural-Forms",
            remedy="`msgfmt --check` shows the lines that are wrong",
        ) from None  # fmt: skip
    rows: Rows = []
    skipped = Counter({"obsolete": len(catalogue.obsolete), "fuzzy": 0, "untranslated": 0})
    for message in catalogue:
        if not message.id:
            continue  # the header
        if message.fuzzy:
            skipped["fuzzy"] += 1
            continue
        made = 0
        for text, translation in _forms(message.id, message.string):
            if text.strip() and translation.strip():
                rows.append({"source": text, "target": translation, "context": message.context})
                made += 1
        skipped["untranslated"] += not made
    return rows, skipped


def _forms(text: Any, translation: Any) -> Iterable[tuple[str, str]]:
    """Source and target of an entry; several for plural forms."""
    if not isinstance(text, (tuple, list)):
        yield text, translation if isinstance(translation, str) else (translation or [""])[0]
        return
    forms = [translation] if isinstance(translation, str) else list(translation) or [""]
    if len(forms) > 1:
        yield text[0], forms[0] or ""
    yield text[-1], forms[-1] or ""


def _check_po(content: bytes, source: str) -> None:
    """Name the first line that cannot stand in a catalogue: Babel passes over some of them in silence."""
    found = _CHARSET.search(content[:10_000])
    name = found[1].decode("ascii", "replace") if found and found[1] != b"CHARSET" else "utf-8"
    try:
        text = content.decode(name)
    except LookupError:
        raise DataError(
            f"its header names the unknown encoding `{name}`", where=source, expected="charset=UTF-8"
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"is not {name}, which its header promises", where=f"{source}:{line}", expected=f"text in {name}",
            remedy="mend the header, or convert the file: msgconv --to-code=UTF-8",
        ) from None  # fmt: skip
    for number, entry in enumerate(text.split("\n"), 1):
        if not _PO_LINE.fullmatch(entry.rstrip("\r")):
            raise DataError(
                f"no line of a gettext catalogue: {entry.strip()[:60]!r}", where=f"{source}:{number}",
                expected='msgid "…", msgstr "…" or a comment',
            )  # fmt: skip


# ---------------------------------------------------------------- TMX


class _Memory:
    """Collects the units of a translation memory while expat reads it."""

    def __init__(self, parser: Any, source: str) -> None:
        self.parser, self.source = parser, source
        self.rows: Rows = []
        self.skipped: Counter[str] = Counter()
        self.path: list[str] = []
        self.unit: dict[str, str | None] = {}
        self.language = ""
        self.text: list[str] | None = None
        self.length = 0

    def fail(self, what: str, expected: str = "a translation memory in TMX 1.4") -> DataError:
        return DataError(what, where=f"{self.source}:{self.parser.CurrentLineNumber}", expected=expected)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.path and name != "tmx":
            raise self.fail(f"is XML, but <{name}> and not <tmx>")
        self.path.append(name)
        if len(self.path) > DEEPEST:
            raise self.fail(f"has elements nested more than {DEEPEST} deep")
        if name == "tu":
            self.unit = {}
        elif name == "tuv":
            self.language = attributes.get("xml:lang") or attributes.get("lang") or ""
            if not self.language:
                raise self.fail("a <tuv> names no language", 'xml:lang="…"')
        elif name == "seg" and "tuv" in self.path:
            self.text, self.length = [], 0

    def characters(self, data: str) -> None:
        if self.text is None:
            return
        self.text.append(data)
        self.length += len(data)
        if self.length > MOST_SEGMENT:
            raise self.fail(f"a segment is longer than {MOST_SEGMENT:,} characters", "sentences or paragraphs")

    def end(self, name: str) -> None:
        self.path.pop()
        if name == "seg" and self.text is not None:
            text = "".join(self.text).strip()
            self.text = None
            if not text:
                self.skipped["empty segments"] += 1
            elif self.language in self.unit:
                self.skipped["second translations into the same language"] += 1
            else:
                self.unit[self.language] = text
        elif name == "tu":
            if len(self.unit) > 1:
                self.rows.append(self.unit)
            else:
                self.skipped["units in a single language"] += 1

    def refuse_entity(self, name: str, *_: Any) -> None:
        raise self.fail(f"declares the entity `{name}`, which can be used to exhaust memory or read files",
                        "a file without entities of its own")  # fmt: skip


def read_tmx(content: bytes, source: str) -> tuple[Rows, Counter[str]]:
    """A row for each unit, with a column for each language as the file calls it, and what was skipped.

    Codes of formatting inside a segment (`<bpt>`, `<ph>`, …) are kept as the text that they hold.

    Raises:
        DataError: no well-formed XML, not TMX, entities of its own, or beyond the bounds.
    """
    parser = expat.ParserCreate()
    memory = _Memory(parser, source)
    parser.StartElementHandler, parser.EndElementHandler = memory.start, memory.end
    parser.CharacterDataHandler = memory.characters
    parser.EntityDeclHandler = memory.refuse_entity
    parser.buffer_text = True
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise DataError(
            f"is no well-formed XML: {expat.errors.messages[error.code]}", where=f"{source}:{error.lineno}",
            expected="a translation memory in TMX 1.4", remedy="`xmllint --noout` shows all that is wrong",
        ) from None  # fmt: skip
    except (LookupError, ValueError) as error:  # an encoding that Python has not
        raise DataError(f"cannot be decoded: {error}", where=source, expected="UTF-8 or UTF-16") from None
    return memory.rows, memory.skipped
