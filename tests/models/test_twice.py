"""Labels from bfloat16 are those of fp32, whatever rounding does; and where bfloat16 is not used at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.models import embed
from tunewell.models.twice import CLOSE, close_calls, faster, settled
from tunewell.predict import Predictor, decide
from tunewell.prediction_sets import SetPredictor
from tunewell.tasks import TaskSpec
from tunewell.tasks.spec import scores_of
from tunewell.train.tune import use_bf16


@pytest.fixture
def unsure(tiny_classifier: Path) -> Predictor:
    """A classifier whose random head is closer than 0.1 on about half of the reviews."""
    return Predictor.load(tiny_classifier)


@pytest.fixture(scope="session")
def many(make_reviews) -> list[str]:
    return [text for text, _ in make_reviews(600)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """(bf16, rows) of every pass through a model."""
    seen, real = [], embed.logits_of

    def spy(model: Any, tokenizer: Any, encoded: Any, **options: Any) -> np.ndarray:
        seen.append((bool(options.get("bf16")), len(encoded["input_ids"])))
        return real(model, tokenizer, encoded, **options)

    monkeypatch.setattr(embed, "logits_of", spy)
    return seen


@pytest.fixture(params=[True, False], ids=["quick", "slow"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor computes in bfloat16."""
    import torch

    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: request.param, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return request.param


@pytest.mark.parametrize("multi", [False, True])
def test_labels_are_those_of_fp32_where_the_model_is_unsure(unsure: Predictor, many: list[str], multi: bool) -> None:
    unsure.spec = replace(unsure.spec, multi_label=multi)
    raw = embed.logits(unsure.model, unsure.tokenizer, many, bf16=True)
    exact = decide(unsure.spec, unsure.scores(many))
    assert decide(unsure.spec, scores_of(unsure.spec, raw)) != exact  # rounding alone gives other labels
    unsure.bf16 = True
    assert unsure.predict(many) == exact
    assert 0 < unsure.again < len(many)
    assert [row["prediction"] for row in unsure.predict_batch(many)] == exact


def test_probabilities_of_close_calls_are_those_of_fp32(unsure: Predictor, many: list[str]) -> None:
    exact = unsure.scores(many)
    unsure.bf16 = True
    quick = unsure.quick_scores(many)
    again = close_calls(exact, False, CLOSE * 0.9)
    assert again.any() and not again.all()
    assert np.abs(quick - exact)[again].max() < 1e-6
    assert 1e-6 < np.abs(quick - exact)[~close_calls(exact, False, CLOSE * 1.1)].max() < 0.025


def test_a_model_that_rounding_shifts_more_is_read_again_further_out() -> None:
    """Every probability is off by 0.08, so that rows turn over that are 0.16 apart: `CLOSE` alone would miss them."""
    p = np.linspace(0.013, 0.987, 157)
    exact = np.stack([p, 1 - p], axis=1)
    quick = exact + np.array([0.08, -0.08])
    out, again = settled(quick, lambda index: exact[index], False)
    assert (out.argmax(1) == exact.argmax(1)).all()
    assert again.sum() == close_calls(quick, False, 4 * 0.08).sum()
    assert (np.where(close_calls(quick, False)[:, None], exact, quick).argmax(1) != exact.argmax(1)).any()


def test_what_is_no_number_is_read_again() -> None:
    quick = np.array([[np.nan, np.nan], [0.95, 0.05], [0.9, 0.1]])
    exact = np.array([[0.2, 0.8], [0.94, 0.06], [0.9, 0.1]])
    out, again = settled(quick, lambda index: exact[index], False)
    assert again.tolist() == [True, False, False]
    assert out.tolist() == [[0.2, 0.8], [0.95, 0.05], [0.9, 0.1]]
    assert close_calls(np.array([[1.0]]), False).tolist() == [False]
    assert close_calls(np.array([[np.nan, 0.9]]), True).tolist() == [True]


def test_only_labels_alone_are_in_bf16_by_themselves(
    unsure: Predictor, many: list[str], calls: list, processor: bool
) -> None:
    assert faster(unsure.model) == processor
    unsure.predict(many)
    assert [quick for quick, _ in calls] == ([True, False] if processor else [False])
    assert unsure.again == (calls[1][1] if processor else 0)
    calls.clear()
    unsure.scores(many)
    unsure.predict_batch(many)
    assert calls == [(False, len(many))] * 2
    calls.clear()
    unsure.bf16 = False
    unsure.predict(many)
    assert calls == [(False, len(many))]


def test_scores_are_never_in_bf16(unsure: Predictor, many: list[str], calls: list, processor: bool) -> None:
    unsure.spec = TaskSpec("text-regression", metric="r2")
    for unsure.bf16 in (None, True):
        assert unsure.predict(many[:20]) == unsure.scores(many[:20]).tolist()
        assert unsure.precision == "fp32"
    assert not any(quick for quick, _ in calls)


def test_prediction_sets_are_never_in_bf16(
    unsure: Predictor, many: list[str], calls: list, tmp_path: Path, processor: bool
) -> None:
    np.savez(tmp_path / "conformal.npz", lac=np.linspace(0, 1, 100), aps=np.linspace(0, 1, 100))
    unsure.run, unsure.bf16 = tmp_path, True
    SetPredictor(unsure, 0.8).predict_batch(many)
    assert calls == [(False, len(many))]


def test_a_model_in_other_weights_is_left_alone(unsure: Predictor, processor: bool) -> None:
    assert not faster(unsure.model.double())
    assert not faster(object())


def test_the_device_is_asked_where_the_model_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert (use_bf16(None), use_bf16(None, "cuda"), use_bf16(None, "cpu"), use_bf16(None, "mps")) == (
        True, True, False, False,
    )  # fmt: skip
    assert use_bf16(True, "cpu")


@pytest.mark.parametrize("jobs", [[], ["--jobs", "2"]])
def test_the_command_says_how_many_it_read_again(
    unsure: Predictor, many: list[str], tmp_path: Path, jobs: list[str]
) -> None:
    unsure.model.save_pretrained(tmp_path / "model")
    unsure.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in many))
    found = {}
    for name, by in (("--no-bf16", []), ("--bf16", jobs)):
        out = tmp_path / f"out{name}.jsonl"
        line = ["predict", tmp_path / "model", tmp_path / "in.jsonl", "-o", out, name, "--json", "--threads", 1, *by]
        done = CliRunner().invoke(app, list(map(str, line)))
        assert done.exit_code == 0, done.stderr
        account = json.loads(done.stdout)
        found[name] = [json.loads(row) for row in out.read_text().splitlines()], account, done.stderr
    rows = [found[name][0] for name in found]
    (_, plain, _), (_, account, said) = found.values()
    assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]
    assert (plain["precision"], plain["read_again"]) == ("fp32", 0)
    assert account["precision"] == "bf16, close calls in fp32"
    apart = [abs(a["probabilities"]["positive"] - b["probabilities"]["positive"]) for a, b in zip(*rows, strict=True)]
    assert 0 < account["read_again"] <= sum(one < 1e-6 for one in apart) < len(many)
    assert max(apart) < 0.025
    assert f"{account['read_again']} close calls read again in fp32" in said


def test_the_command_says_where_bf16_does_nothing(tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "_headed", property(lambda self: False))
    done = CliRunner().invoke(app, ["predict", str(tiny_classifier), "--bf16"], input="good crew\n")
    assert done.exit_code == 0
    assert "--bf16 is for the classes of a head" in done.stderr
