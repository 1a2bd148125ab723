"""A SentencePiece vocabulary as a fast tokenizer.

A `.spm` file is a protocol buffer (Kudo and Richardson, 2018). Only its pieces and how texts are normalised are
wanted, so the few fields are read here, without the packages sentencepiece and protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tunewell.errors import ModelError

PAD = "<pad>"
PIECES, TRAINER, NORMALIZER = 1, 2, 3  # fields of a ModelProto
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # kinds of pieces
UNIGRAM = 1


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer message; numbers of fixed size come as bytes.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 150), (2, b'hi')]

    Raises:
        ValueError: the message is damaged.
    """
    place = 0

    def number() -> int:
        nonlocal place
        out = shift = 0
        while True:
            if place >= len(content) or shift > 63:
                raise ValueError("cut short")
            byte = content[place]
            place += 1
            out |= (byte & 0x7F) << shift
            if byte < 0x80:
                return out
            shift += 7

    while place < len(content):
        key = number()
        kind = key & 7
        if kind == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 2: -1, 5: 4}.get(kind)
        if size is None:
            raise ValueError(f"wire type {kind}")
        size = number() if size < 0 else size
        if place + size > len(content):
            raise ValueError("cut short")
        yield key >> 3, content[place : place + size]
        place += size


def read_pieces(path: str | Path) -> tuple[list[tuple[str, float, int]], dict[str, Any]]:
    """(piece, log-probability, kind) in the order of ids, and `charsmap`, the table of normalisation.

    Raises:
        ModelError: no SentencePiece file, or not a unigram model.
    """
    path = Path(path)

    def refuse(what: str) -> NoReturn:
        raise ModelError(what, where=str(path), expected="a SentencePiece unigram model, such as vocab.enpt.spm")

    pieces: list[tuple[str, float, int]] = []
    found: dict[str, Any] = {"charsmap": b"", "model": UNIGRAM}
    try:
        for number, value in fields(path.read_bytes()):
            if not isinstance(value, bytes):
                continue
            if number == PIECES:
                parts: dict[int, Any] = dict(fields(value))
                text, score, kind = parts[1], parts.get(2, bytes(4)), parts.get(3, NORMAL)
                if not isinstance(kind, int):
                    raise ValueError("kind of a piece")
                pieces.append((text.decode("utf-8"), struct.unpack("<f", score)[0], kind))
            elif number == TRAINER:
                found["model"] = dict(fields(value)).get(3, UNIGRAM)
            elif number == NORMALIZER:
                found["charsmap"] = dict(fields(value)).get(2, b"")
    except OSError as error:
        refuse(f"cannot be read: {error.strerror or error}")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        refuse("is no SentencePiece vocabulary, or damaged")
    if not pieces:
        refuse("holds no pieces")
    if found["model"] != UNIGRAM:
        refuse("is a SentencePiece model of another kind than unigram")
    return pieces, found


def missing_characters(pieces: list[tuple[str, float, int]]) -> list[str]:
    """ASCII characters that the pieces cannot write: often braces and the signs of tags.

    >>> "{" in missing_characters([("a", -1.0, NORMAL)]), "a" in missing_characters([("a", -1.0, NORMAL)])
    (True, False)
    """
    known = {text for text, _, _ in pieces}
    return [chr(point) for point in range(33, 127) if chr(point) not in known]


def fast_tokenizer(path: str | Path, window: int, extra: Sequence[str] = ()) -> Any:
    """The vocabulary of a file as a `PreTrainedTokenizerFast` that ends every text; `<pad>` is its last entry.

    Args:
        window: `model_max_length` in tokens. extra: pieces behind those of the file, as unlikely as its rarest.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces, found = read_pieces(path)
    rarest = min(score for _, score, _ in pieces)
    pieces = pieces + [(text, rarest, NORMAL) for text in extra]
    kinds = [kind for _, _, kind in pieces]
    ends = [text for text, _, kind in pieces if kind == CONTROL and text == "</s>"]
    if UNKNOWN not in kinds or not ends:
        raise ModelError(
            "has no piece for unknown characters, or none that ends a text", where=str(path), expected="<unk> and </s>"
        )
    unknown = kinds.index(UNKNOWN)
    tokenizer = Tokenizer(
        models.Unigram([(text, score) for text, score, _ in pieces], unk_id=unknown, byte_fallback=BYTE in kinds)
    )
    steps: list[Any] = [normalizers.Precompiled(found["charsmap"])] if found["charsmap"] else []
    steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    metaspace = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    bytes_too = [decoders.ByteFallback(), decoders.Fuse()] if BYTE in kinds else []
    tokenizer.decoder = decoders.Sequence([*bytes_too, metaspace]) if bytes_too else metaspace
    tokenizer.add_special_tokens([AddedToken(PAD, special=True, normalized=False)])
    users = [text for text, _, kind in pieces if kind == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in users])
    end = [text for text, _, _ in pieces].index("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=window,
        eos_token="</s>",
        unk_token=pieces[unknown][0],
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
