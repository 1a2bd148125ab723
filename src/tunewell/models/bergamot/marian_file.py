"""Marian's binary model files: named arrays, some of them 8-bit integers, and the settings as YAML.

The layout (Junczys-Dowmunt et al., 2018; version 1): two 64-bit numbers, version and count; a header of four
64-bit numbers for each array (length of its name, type, number of dimensions, bytes); the names; the dimensions
as 32-bit numbers; padding, whose length stands before it; the arrays. Arrays of type intgemm8 (Bogoychev et al.,
2020) are integers from -127 to 127, followed by the float by which the weights were multiplied. The files are
data: nothing in them is executed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml

from tunewell.errors import ModelError

VERSION = 1
FLOAT32, INT8, INTGEMM8 = 0x0404, 0x0101, 0x4101
SETTINGS = "special:model.yml"
MOST = 10_000  # arrays; a damaged header may ask for anything
EMBEDDINGS = "Wemb"


@dataclass(frozen=True)
class MarianFile:
    """What a file holds.

    Attributes:
        settings: the options that the model was trained with.
        arrays: name -> float32 array as Marian shapes it: (in, out) of a layer, (1, out) of a bias.
    """

    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]


def read_marian(path: str | Path) -> MarianFile:
    """Read and dequantise a file.

    Raises:
        ModelError: not such a file, cut short, of another version, or with arrays of an unknown type.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=str(path)) from None

    def refuse(what: str) -> NoReturn:
        raise ModelError(
            what, where=str(path), expected="a model in Marian's binary format, such as model.enpt.intgemm.alphas.bin"
        )

    def take(form: str, offset: int) -> tuple[tuple[int, ...], int]:
        end = offset + struct.calcsize(form)
        if end > len(content):
            refuse("is cut short")
        return struct.unpack_from(form, content, offset), end

    (version, count), place = take("<QQ", 0)
    if version != VERSION:
        refuse(f"begins with the version number {version}")
    if not 0 < count <= MOST:
        refuse(f"claims to hold {count:,} arrays")
    headers = []
    for _ in range(count):
        header, place = take("<QQQQ", place)
        headers.append(header)
    names = []
    for length, *_ in headers:
        if place + length > len(content):
            refuse("is cut short")
        names.append(content[place : place + length].rstrip(b"\0").decode("utf-8", errors="replace"))
        place += length
    shapes = []
    for _, _, dimensions, _ in headers:
        if dimensions > 8:
            refuse(f"claims an array of {dimensions} dimensions")
        shape, place = take(f"<{dimensions}i", place)
        shapes.append(shape)
    (padding,), place = take("<Q", place)
    place += padding
    settings: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, (_, kind, _, size), shape in zip(names, headers, shapes, strict=True):
        block = content[place : place + size]
        if len(block) < size:
            refuse(f"is cut short: {name} has {len(block):,} of {size:,} bytes")
        place += size
        if name == SETTINGS:
            settings = _settings(block, refuse)
        elif name.endswith("_QuantMultA"):  # for integer activations, which we do not use
            continue
        elif any(n < 0 for n in shape):
            refuse(f"{name} has the shape {shape}")
        elif kind == FLOAT32:
            arrays[name] = _numbers(block, shape, np.dtype("<f4"), name, refuse).astype(np.float32)
        elif kind == INTGEMM8:
            arrays[name] = _dequantised(block, shape, name, refuse)
        else:
            refuse(f"{name} has the type {kind:#06x}, neither float32 nor intgemm8")
    if not settings:
        refuse(f"lacks its settings, {SETTINGS}")
    return MarianFile(settings, arrays)


def _numbers(block: bytes, shape: tuple[int, ...], kind: np.dtype[Any], name: str, refuse: Any) -> np.ndarray:
    count = int(np.prod(shape, dtype=np.int64))
    if count * kind.itemsize > len(block):
        refuse(f"{name} of the shape {shape} does not fit its {len(block):,} bytes")
    return np.frombuffer(block, dtype=kind, count=count).reshape(shape)


def _dequantised(block: bytes, shape: tuple[int, ...], name: str, refuse: Any) -> np.ndarray:
    """float32 weights; integers of layers stand in the file transposed, those of embeddings as they are."""
    rows, columns = shape if len(shape) == 2 else refuse(f"{name} has the shape {shape}, not two dimensions")
    as_it_is = name.startswith(EMBEDDINGS)
    integers = _numbers(block, (rows, columns) if as_it_is else (columns, rows), np.dtype("i1"), name, refuse)
    if rows * columns + 4 > len(block):
        refuse(f"{name} lacks its multiplier")
    (multiplier,) = struct.unpack_from("<f", block, rows * columns)
    if not (np.isfinite(multiplier) and multiplier > 0):
        refuse(f"{name} has the multiplier {multiplier}")
    weights = dequantise(integers, multiplier)
    return weights if as_it_is else np.ascontiguousarray(weights.T)


def dequantise(integers: np.ndarray, multiplier: float) -> np.ndarray:
    """Weights from their 8-bit integers: integer / multiplier, where multiplier = 127 / largest weight.

    >>> dequantise(np.array([-127, 0, 32], dtype=np.int8), 128.0).tolist()
    [-0.9921875, 0.0, 0.25]
    """
    return integers.astype(np.float32) / np.float32(multiplier)


def _settings(block: bytes, refuse: Any) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(block.rstrip(b"\0").decode("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        loaded = None
    if not isinstance(loaded, dict):
        refuse(f"its settings, {SETTINGS}, are no YAML mapping")
    return dict(loaded)
