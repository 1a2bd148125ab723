"""Which character encoding a text file has: byte order mark, UTF-8, else detected and said so."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from tunewell.errors import DataError

Opener = Callable[[], IO[bytes]]

CHUNK = 1 << 20
SAMPLE = 1 << 17
_MARKS = (  # the longer first: the UTF-32 mark begins with the UTF-16 one
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEADS = bytes(range(0xC2, 0xF5))  # first bytes of UTF-8 characters beyond ASCII
_CONTROLS = bytes(b for b in range(32) if b not in b"\t\n\v\f\r\x1b")
_WESTERN = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœŠšŽž€£¥§©®°«»¿¡·²³½¼‘’“”„–—…•™ \xa0")
_DETECTABLE = ["gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp1250", "cp1252"]
NAMES = {"cp1252": "windows-1252 (Latin-1)", "latin-1": "Latin-1", "gb18030": "GB18030", "utf-16": "UTF-16"}


@dataclass(frozen=True)
class Encoding:
    """How to decode a file: codec, what to do with broken bytes ("strict" or "replace"), what to say."""

    codec: str
    errors: str = "strict"
    notice: str = ""


def detect(opener: Opener, source: str, wanted: str = "auto") -> Encoding:
    """Find the encoding of a text file, in bounded memory, reading it once (twice when it is not UTF-8).

    A byte order mark decides; otherwise UTF-8 when the whole file is valid, or all but a few broken
    characters, which become U+FFFD and are counted in the notice; otherwise a guess: Western European
    where single letters beyond ASCII stand among ASCII, else what charset-normalizer finds most coherent.

    Args:
        opener: opens the file as bytes.
        source: its name, for errors.
        wanted: an encoding that the user named, or "auto".

    Raises:
        DataError: unknown encoding name, or the file is binary.
    """
    if wanted != "auto":
        return Encoding(_known(wanted))
    with opener() as file:
        head = file.read(SAMPLE)
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return Encoding(codec, notice="" if codec == "utf-8-sig" else f"{source}: read as {codec.upper()}")
    if b"\0" in head:
        return _wide(head, source)
    if len(head) - len(head.translate(None, _CONTROLS)) > len(head) / 50:
        raise _binary(source)
    broken, leads, sample = _try_utf8(opener, source)
    if broken == 0:
        return Encoding("utf-8")
    if broken * 10 <= leads:
        some = "1 character is" if broken == 1 else f"{broken:,} characters are"
        return Encoding("utf-8", "replace", f"{source}: {some} broken UTF-8, shown as \ufffd")
    for codec in _guesses(sample):
        if _decodes(opener, codec):
            shown = NAMES.get(codec, codec)
            return Encoding(
                codec, notice=f"{source}: not UTF-8, read as {shown}; name the `encoding` if letters look wrong"
            )
    raise _binary(source)  # unreachable: Latin-1 decodes everything


def _known(name: str) -> str:
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        raise DataError(
            f"unknown encoding `{name}`",
            where="encoding",
            expected="auto, utf-8, utf-16, latin-1, windows-1252, gb18030, big5, shift_jis or any that Python knows",
        ) from None
    return "utf-8-sig" if codec == "utf-8" else codec


def _binary(source: str) -> DataError:
    return DataError(
        "is not a text file (it holds binary data)",
        where=source,
        expected="CSV, TSV, JSON or JSONL as text, or a Parquet or Arrow file with its own extension",
        remedy="export the data again; if it is text in a rare encoding, name it with `encoding`",
    )


def _wide(head: bytes, source: str) -> Encoding:
    """UTF-16 without a mark: in text that is mostly ASCII every other byte is zero."""
    half = max(1, len(head) // 2)
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > 0.4 * half and even < 0.05 * half:
        return Encoding("utf-16-le", notice=f"{source}: read as UTF-16 (little endian, no byte order mark)")
    if even > 0.4 * half and odd < 0.05 * half:
        return Encoding("utf-16-be", notice=f"{source}: read as UTF-16 (big endian, no byte order mark)")
    raise _binary(source)


def _try_utf8(opener: Opener, source: str) -> tuple[int, int, bytes]:
    """Broken characters, first bytes of characters beyond ASCII, and a sample of lines beyond ASCII."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    broken = leads = 0
    tail = b""
    sample = bytearray()
    with opener() as file:
        while chunk := file.read(CHUNK):
            if b"\0" in chunk:
                raise _binary(source)
            if not chunk.isascii() and len(sample) < SAMPLE:
                for line in chunk.splitlines(keepends=True):
                    if not line.isascii():
                        sample += line[: SAMPLE - len(sample)]
            text = decoder.decode(chunk)
            broken += text.count("\ufffd") - (tail + chunk).count(b"\xef\xbf\xbd")
            leads += len(chunk) - len(chunk.translate(None, _LEADS))
            tail = chunk[-2:]
    return broken + len(decoder.decode(b"", final=True)), leads, bytes(sample)


def _guesses(sample: bytes) -> list[str]:
    """Encodings to try, the most likely first; Latin-1, which decodes anything, is the last."""
    high = [i for i, byte in enumerate(sample) if byte > 127]
    runs = sum(1 for i in high if i == 0 or sample[i - 1] < 128)  # runs of bytes beyond ASCII
    letters = sample.decode("cp1252", errors="replace")
    western = sum(letters[i] in _WESTERN for i in high)
    if runs > 0.7 * len(high) and western > 0.9 * len(high):
        return ["cp1252", "latin-1"]
    from charset_normalizer import from_bytes

    found = [match.encoding for match in from_bytes(sample, cp_isolation=_DETECTABLE)]
    if len(high) <= 12 and "gb18030" in found:  # too little to tell East Asian encodings apart: the most common one
        found.insert(0, "gb18030")
    return [*found, "cp1252", "latin-1"]


def _decodes(opener: Opener, codec: str) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        with opener() as file:
            while chunk := file.read(CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
