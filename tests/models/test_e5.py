"""The packaged multilingual encoder: its file format by a file made here, its weights by what they can do."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tunewell.errors import ModelError
from tunewell.models.e5 import FILE, LAYER, Q4_0, convert, dequantise, read, unpacked

HIDDEN, FF, VOCABULARY, POSITIONS = 32, 64, 12, 16


def quantised(weights: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Q4_0 of (n · 32,) values as ggml rounds them, block by block, and the values that they stand for."""
    out, meant = b"", []
    for block in weights.reshape(-1, 32):
        top = block[np.argmax(np.abs(block))]
        scale = np.float16(top / -8)
        q = [int(min(15, max(0, np.floor(v / float(scale) + 8.5)))) if scale else 8 for v in block]
        out += scale.tobytes() + bytes(q[i] | q[i + 16] << 4 for i in range(16))
        meant += [(v - 8) * float(scale) for v in q]
    return out, np.array(meant, np.float32)


def model_file(path: Path, *, leave_out: str = "", magic: bytes = b"E5S1", block: int = 32) -> dict[str, np.ndarray]:
    """A one-layer model; returns the values that each tensor stands for."""
    rng = np.random.default_rng(0)
    shapes = {"emb.word": (VOCABULARY, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (2, HIDDEN),
              "emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}  # fmt: skip
    for part in LAYER:
        outputs = FF if part == "fi" else HIDDEN
        shapes[f"l0.{part}.w"] = (HIDDEN,) if part.endswith("ln") else (outputs, FF if part == "fo" else HIDDEN)
        shapes[f"l0.{part}.b"] = (outputs,)
    meant, blobs = {}, {}
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            blobs[name], flat = quantised(values.ravel())
            meant[name] = flat.reshape(shape)
        else:
            blobs[name], meant[name] = values.tobytes(), values
    blobs.pop(leave_out, None)
    head = magic + struct.pack("<I7ifi", 1, HIDDEN, 1, 2, FF, VOCABULARY, POSITIONS, 2, 1e-12, block)
    head += struct.pack("<5iQ", 2, 0, 2, 1, 3, 3) + struct.pack("<3I", 0, 1, 3) + struct.pack("<2f", 0, -1) + b"abc"
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 65, 1, 97)
    directory = sum(2 + len(name) + 21 for name in blobs)
    place, entries = len(head) + 4 + directory, b""
    for name, blob in blobs.items():
        count = int(np.prod(shapes[name]))
        entries += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", 1, count, place, len(blob))
        place += len(blob)
    path.write_bytes(head + struct.pack("<i", len(blobs)) + entries + b"".join(blobs.values()))
    return meant


def test_blocks_mean_what_ggml_says() -> None:
    block = np.zeros(2, Q4_0)
    block["scale"] = [0.25, -2]
    block["halves"][1] = range(16)  # low halves 0 to 15, high halves 0
    values = dequantise(block)
    assert values[:32].tolist() == [-2.0] * 32  # q = 0: (0 - 8) * 0.25
    assert values[32:48].tolist() == [(q - 8) * -2.0 for q in range(16)]
    assert values[48:].tolist() == [16.0] * 16


def test_every_tensor_finds_its_place(tmp_path: Path) -> None:
    meant = model_file(tmp_path / FILE)
    sizes, found = read(tmp_path / FILE)
    assert (sizes.hidden, sizes.layers, sizes.heads, sizes.vocabulary) == (HIDDEN, 1, 2, VOCABULARY)
    assert len(found) == len(meant)
    np.testing.assert_array_equal(found["embeddings.word_embeddings.weight"], meant["emb.word"])
    np.testing.assert_array_equal(found["encoder.layer.0.output.dense.weight"], meant["l0.fo.w"])
    np.testing.assert_array_equal(found["encoder.layer.0.attention.self.key.bias"], meant["l0.k.b"])


def test_what_is_written_loads_as_any_model(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    content = json.loads((tiny_model / "tokenizer.json").read_text(encoding="utf-8"))
    for old, new in (("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[MASK]", "<mask>")):
        content = json.loads(json.dumps(content).replace(old, new))
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    meant = model_file(tmp_path / FILE)
    convert(tmp_path / FILE, tmp_path / "tokenizer.json", tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out", use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(model.encoder.layer[0].intermediate.dense.weight.detach(), meant["l0.fi.w"])
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == POSITIONS
    assert tokenizer.pad_token == "<pad>"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"magic": b"GGUF"}, "begins with b'GGUF'"),
        ({"block": 64}, "its blocks hold 64 weights"),
        ({"leave_out": "l0.q.w"}, "encoder.layer.0.attention.self.query.weight is missing"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict, says: str) -> None:
    model_file(tmp_path / FILE, **change)
    with pytest.raises(ModelError, match=says):
        read(tmp_path / FILE)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    model_file(tmp_path / FILE)
    data = (tmp_path / FILE).read_bytes()
    for length in (40, 200, len(data) - 500):
        (tmp_path / FILE).write_bytes(data[:length])
        with pytest.raises(ModelError, match="cannot be read") as refused:
            read(tmp_path / FILE)
        assert "it is fetched again" in str(refused.value)


@pytest.mark.slow
@pytest.mark.assets
def test_sentences_of_one_meaning_are_close_in_all_languages() -> None:
    from tunewell.assets import fetch
    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder

    assert unpacked(fetch("multilingual-e5-small")).is_dir()
    encoder = load_encoder("intfloat/multilingual-e5-small")
    rice = ["How do I cook rice?", "怎么煮米饭？", "Comment cuire du riz ?", "Wie kocht man Reis?"]
    market = ["The stock market fell sharply today.", "今天股市大跌。", "La bourse a chuté aujourd'hui."]
    v = embed(encoder.model, encoder.tokenizer, [*rice, *market])
    cosine = v @ v.T / np.outer(np.linalg.norm(v, axis=1), np.linalg.norm(v, axis=1))
    alike = [cosine[i, j] for i in range(7) for j in range(i) if (i < 4) == (j < 4)]
    unlike = [cosine[i, j] for i in range(7) for j in range(i) if (i < 4) != (j < 4)]
    assert min(alike) > max(unlike)


@pytest.mark.slow
@pytest.mark.assets
def test_chinese_similarity_is_ranked_as_people_do() -> None:
    """0.778 on all 1,379 pairs of the test split."""
    from scipy.stats import spearmanr

    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder
    from tunewell.retention.probes.similarity import cosine

    file = Path(os.environ.get("TUNEWELL_DATA_ROOT", "")) / "stsb" / "zh_test.jsonl"
    if not file.is_file():
        pytest.skip("no public sets: TUNEWELL_DATA_ROOT")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:300]]
    encoder = load_encoder("multilingual-e5-small")
    a, b = (embed(encoder.model, encoder.tokenizer, [row[c] for row in rows]) for c in ("text_a", "text_b"))
    assert spearmanr(cosine(a, b), [row["score"] for row in rows])[0] > 0.70
