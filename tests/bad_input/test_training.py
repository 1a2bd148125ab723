"""Tuning that cannot go on: a loss that is not finite, and rows with holes that are counted, not hidden."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

FAST = ["--probes", "none", "--strategy", "plain", "--output_dir", "runs/x"]


def loss_that_becomes(value: float, after: int) -> Callable:
    """Every loss from the given call on is `value`."""
    losses = import_module("tunewell.train.losses")
    real, calls = losses.loss_for, [0]

    def loss_for(*args, **options):
        row_loss = real(*args, **options)

        def broken(*a, **o):
            calls[0] += 1
            return row_loss(*a, **o) * (value if calls[0] > after else 1.0)

        return broken

    return loss_for


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_stays_non_finite_stops_the_run(
    value: float,
    here: Path,
    tunewell: Callable,
    tiny_model: Path,
    make_reviews,
    save_csv,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_csv(here / "a.csv", make_reviews(400))
    monkeypatch.setattr(import_module("tunewell.train.losses"), "loss_for", loss_that_becomes(value, after=3))
    options = ("--num_train_epochs", "5", "--per_device_train_batch_size", "8")
    result = tunewell("run", "--model", tiny_model, "--train", "a.csv", *FAST, *options)
    assert result.exit_code == 2, result.output
    assert "not finite" in result.stderr
    assert "learning_rate" in result.stderr
    folder = here / "runs" / "x"
    assert not (folder / "model").exists()
    assert not (folder / "summary.json").exists()
    entries = [json.loads(line) for line in (folder / "train" / "metrics.jsonl").read_text().splitlines()]
    assert any(entry.get("loss") in ("nan", "inf") for entry in entries)  # shown at its step, not filtered out


def test_rows_with_holes_are_counted(here: Path, tunewell: Callable, tiny_model: Path, make_reviews, save_csv) -> None:
    rows = [*make_reviews(100), ("", "positive"), ("  ", "negative"), ("no label here", "")]
    save_csv(here / "a.csv", rows)
    result = tunewell("check", "a.csv", "--model", tiny_model, "--json")
    assert result.exit_code == 0, result.output
    accounts = json.loads(result.stdout)["accounts"]
    assert sum(a["read"] for a in accounts) == 103
    assert sum(a["used"] for a in accounts) == 100
    dropped: dict[str, int] = {}
    for account in accounts:
        assert account["read"] == account["used"] + sum(account["dropped"].values())
        for reason, n in account["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + n
    assert dropped == {"empty text": 2, "no label": 1}


def test_scores_with_nan_are_counted(here: Path, tunewell: Callable, tiny_model: Path, make_reviews, save_csv) -> None:
    rows = [(text, str(len(text) / 7)) for text, _ in make_reviews(100)]
    save_csv(here / "a.csv", [*rows, ("one more", "nan"), ("and more", "")])
    result = tunewell("check", "a.csv", "--model", tiny_model, "--json", "--task", "text-regression")
    assert result.exit_code == 0, result.output
    dropped: dict[str, int] = {}
    for account in json.loads(result.stdout)["accounts"]:
        for reason, n in account["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + n
    assert sum(dropped.values()) == 2
