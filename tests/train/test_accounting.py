"""Operations by formula against torch's own counter; peak, energy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tunewell.train.accounting import Energy, account, peak_flops, work_of

ROWS, TOKENS = 4, 24


def counted(model, batch) -> float:
    """Operations of a step as torch counts them, attention spelled out."""
    model.config._attn_implementation = "eager"
    model.train()
    with FlopCounterMode(display=False) as counter:
        model(**batch).logits.float().sum().backward()
    return float(counter.get_total_flops())


def batch_of(vocabulary: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, vocabulary, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def head_of(model) -> float:
    """Operations of what the formula leaves out: linear layers outside the numbered ones."""
    inside = {id(m) for n, m in model.named_modules() if any(part.isdigit() for part in n.split("."))}
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and id(m) not in inside]
    return sum(6.0 * m.in_features * m.out_features for m in linear)


@pytest.mark.parametrize("frozen", ["nothing", "embeddings", "lower layer", "all but head"])
def test_encoders_as_torch_counts_them(tiny_model, frozen):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, attn_implementation="eager")
    held = {
        "nothing": [], "embeddings": [model.bert.embeddings],
        "lower layer": [model.bert.embeddings, model.bert.encoder.layer[0]], "all but head": [model.bert],
    }[frozen]  # fmt: skip
    for module in held:
        module.requires_grad_(False)
    work = work_of(model).of(ROWS * TOKENS, ROWS * TOKENS**2)
    found = counted(model, batch_of(model.config.vocab_size)) - ROWS * head_of(model)
    # the lowest trained layer's queries, keys and values pass no gradient on; in two layers that shows
    spared = 0 if frozen in ("nothing", "all but head") else 2 * ROWS * TOKENS * 3 * model.config.hidden_size**2
    assert work - spared == pytest.approx(found, rel=0.03)


def test_decoders_as_torch_counts_them(tiny_decoder):
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder, attn_implementation="eager")
    work = work_of(model).of(ROWS * TOKENS, ROWS * TOKENS**2)
    found = counted(model, batch_of(model.config.vocab_size)) - ROWS * TOKENS * head_of(model)
    assert work == pytest.approx(found, rel=0.05)


def test_the_record_by_hand():
    from tunewell.train.accounting import Work

    found = account(Work(10.0, 2.0), cells=100, pairs=50, seconds=2.0, bf16=False, device="cpu", joules=7200.0)
    assert (found.flops, found.flops_per_second) == (1100.0, 550.0)
    assert found.share_of_peak == pytest.approx(550.0 / peak_flops("float32", "cpu", torch.get_num_threads()))
    assert found.joules == 7200.0


def test_energy_of_packages_and_of_a_counter_that_began_anew(tmp_path: Path):
    for name, start in (("intel-rapl:0", 900), ("intel-rapl:1", 100), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{start}000000\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000000\n")
    energy = Energy(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50000000\n")  # past its end: 100 + 50 J
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("130000000\n")
    assert energy.joules() == pytest.approx(180.0)
    assert Energy(tmp_path / "none").joules() is None
