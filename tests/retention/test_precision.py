"""What chooses may be measured in bfloat16; what is reported is measured in fp32."""

import numpy as np
import torch

import tunewell
from tunewell.models import embed as embedding
from tunewell.retention.language import surprise_of
from tunewell.retention.suite import load_suite


def test_select_halves_are_read_in_bf16_and_report_halves_in_fp32(tiny_csv, tiny_model, tmp_path, monkeypatch):
    """All probes are read on both halves; only the precision differs, and base and tuned model are read alike."""
    read: list[tuple[frozenset[str], bool]] = []
    plain = embedding.embed

    def watched(model, tokenizer, texts, **options):
        read.append((frozenset(texts), options.get("bf16", False)))
        return plain(model, tokenizer, texts, **options)

    monkeypatch.setattr(embedding, "embed", watched)
    keys = {"num_train_epochs": 1, "explain": 0, "average_alphas": [0.5], "probes": ["simlex999"]}
    tunewell.run(
        train=str(tiny_csv), model=str(tiny_model), output_dir=str(tmp_path / "run"), keep=0.01, bf16=True,
        progress=False, raise_on_gate=False, **keys,
    )  # fmt: skip
    halves = {half: frozenset(load_suite(["simlex999"], half=half, seed=42).texts) for half in ("select", "report")}
    assert halves["select"] != halves["report"]
    precisions = {half: [bf16 for texts, bf16 in read if texts == halves[half]] for half in halves}
    assert precisions["select"] == [True] * 3, "the base model, the tuned one, and its average"
    assert precisions["report"] == [False] * 2, "the base model and the chosen one"


def test_a_run_in_fp32_chooses_in_fp32(tiny_csv, tiny_model, tmp_path, monkeypatch):
    precisions: list[bool] = []
    plain = embedding.embed

    def watched(model, tokenizer, texts, **options):
        precisions.append(options.get("bf16", False))
        return plain(model, tokenizer, texts, **options)

    monkeypatch.setattr(embedding, "embed", watched)
    tunewell.run(
        train=str(tiny_csv), model=str(tiny_model), output_dir=str(tmp_path / "run"), keep=0.01, bf16=False,
        num_train_epochs=1, explain=0, probes=["simlex999"], progress=False, raise_on_gate=False,
    )  # fmt: skip
    assert precisions and not any(precisions)


def test_a_decoder_in_bf16_says_nearly_the_same(tiny_decoder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    texts = ["the film was good", "a long and quiet evening"]
    exact, quick = (surprise_of(model, tokenizer, bf16=bf16)(texts) for bf16 in (False, True))
    assert not np.array_equal(exact, quick), "bf16 was not used"
    assert np.allclose(exact, quick, rtol=0.02)
    assert model(torch.tensor([[1]])).logits.dtype == torch.float32
