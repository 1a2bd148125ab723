"""Probes of encoder-decoders against Transformers' own logits, and files of pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tunewell.errors import DataError, RecipeError
from tunewell.retention.forgetting import compare
from tunewell.retention.translating import LEAST_PAIRS, following, greedy, load_translating_suite, own_pairs

SOURCES, TARGETS = ["the red room", "a green house 3"], ["das rote Zimmer", ""]


@pytest.fixture
def writer(tiny_t5):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from tunewell.tasks.generation.writers import Seq2SeqWriter

    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5).eval()
    return Seq2SeqWriter(model, AutoTokenizer.from_pretrained(tiny_t5), 64)


def logits_of(writer, source, target):
    """(A, V) by Transformers, which shifts labels itself."""
    import torch

    inputs = writer.tokenizer(source, return_tensors="pt")
    labels = writer.tokenizer(text_target=target, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = writer.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels)
    return out.logits[0], labels[0]


def test_what_comes_next_is_what_transformers_says(writer):
    """The empty target has one place, that of its end mark."""
    found = following(writer, SOURCES, TARGETS, 32, 3)
    for i, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        logits, labels = logits_of(writer, source, target)
        best = logits.log_softmax(-1).topk(3)
        n = len(labels)
        assert found.ids[i, :n].tolist() == best.indices.tolist()
        np.testing.assert_allclose(found.logs[i, :n], best.values.numpy(), atol=1e-5)
        assert (found.ids[i, n:] == -1).all()


def test_own_pairs_are_nats_of_the_target(writer):
    import torch

    logits, labels = logits_of(writer, SOURCES[0], TARGETS[0])
    nats = torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    arrays = own_pairs("mine", [(SOURCES[0], TARGETS[0])]).arrays(writer)
    assert arrays["nats"][0] == pytest.approx(nats, rel=1e-5)
    assert arrays["bytes"][0] == len(writer.tokenizer.decode(labels, skip_special_tokens=True).encode())


def test_a_model_keeps_all_of_itself_and_less_when_it_is_disturbed(writer):
    import copy

    import torch

    suite = load_translating_suite(["auto"], write=lambda texts: greedy(writer, texts))
    before = suite.measure(writer)
    itself = compare(before, suite.measure(writer))
    assert itself.mean.value == 1 and {p.name: p.after.value for p in itself.probes} == {"agreement": 1.0, "kl": 0.0}
    other = copy.copy(writer)
    other.model = copy.deepcopy(writer.model)
    with torch.no_grad():
        other.model.lm_head.weight.neg_()  # of a tied model its embeddings, too
    found = {p.name: p for p in compare(before, suite.measure(other)).probes}
    assert found["agreement"].after.value < 1 and found["kl"].after.value > 0
    assert [p.name for p in suite.counted().probes] == ["agreement"]


def test_pairs_from_a_file(tmp_path, writer):
    path = tmp_path / "mine.jsonl"
    rows = [{"en": f"room {i}", "de": f"Zimmer {i}"} for i in range(LEAST_PAIRS)]
    path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    keys = {"write": lambda texts: list(texts), "columns": ("en", "de"), "source": "pt"}
    halves = [load_translating_suite(["auto"], [str(path)], half=half, **keys) for half in ("select", "report")]
    assert [s.names for s in halves] == [("mine",)] * 2  # no general text in Portuguese
    assert not set(halves[0].probes[0].texts) & set(halves[1].probes[0].texts)
    with pytest.raises(DataError, match="columns de, en"):
        load_translating_suite(["none"], [str(path)], write=lambda texts: [], columns=("en", "fr"))
    path.write_text("\n".join(json.dumps(r) for r in rows[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match=f"only {LEAST_PAIRS - 1} pairs"):
        load_translating_suite(["none"], [str(path)], **keys)
    (tmp_path / "kl.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    with pytest.raises(RecipeError, match="two probes are called `kl`"):
        load_translating_suite(["auto"], [str(tmp_path / "kl.jsonl")], write=lambda texts: [], columns=("en", "de"))
