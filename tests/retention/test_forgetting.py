"""Retention by hand, pairing, capping, and the files that measurements are kept in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from tunewell.errors import DataError
from tunewell.retention.forgetting import compare, point
from tunewell.retention.measurement import Measurement, Measurements


def right(name: str, flags: list[int], chance: float = 0.5, counted: bool = True) -> Measurement:
    arrays = {"right": np.array(flags, dtype=float)}
    return Measurement(name, name.title(), "accuracy", "accuracy", chance, counted, "same", arrays)


def ranks(name: str, cosine: np.ndarray, gold: np.ndarray) -> Measurement:
    return Measurement(name, name, "Spearman", "spearman", 0.0, True, "same", {"cosine": cosine, "gold": gold})


def suite(*entries: Measurement) -> Measurements:
    return Measurements("report", {m.name: m for m in entries})


def test_retention_by_hand():
    before, after = suite(right("a", [1] * 90 + [0] * 10)), suite(right("a", [1] * 80 + [0] * 20))
    result = compare(before, after)
    assert result.probes[0].retention.value == pytest.approx((0.8 - 0.5) / (0.9 - 0.5))
    assert result.mean.value == pytest.approx(0.75)
    low, high = result.probes[0].retention.low, result.probes[0].retention.high
    assert low is not None and high is not None and low < 0.75 < high


def test_an_unchanged_model_keeps_exactly_everything_in_every_resample():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=80)
    same = suite(right("a", [1, 1, 1, 0] * 20), ranks("b", gold + rng.normal(size=80), gold))
    result = compare(same, same)
    for e in (result.mean, result.worst, *(p.retention for p in result.probes)):
        assert (e.value, e.low, e.high) == (1.0, 1.0, 1.0)


def test_spearman_is_scipys():
    rng = np.random.default_rng(1)
    cosine, gold = rng.normal(size=60), rng.integers(0, 5, 60).astype(float)
    assert ranks("b", cosine, gold).value == pytest.approx(spearmanr(cosine, gold).statistic)


def test_a_gain_does_not_pay_for_a_loss():
    before = suite(right("lost", [1] * 80 + [0] * 20), right("won", [1] * 70 + [0] * 30))
    after = suite(right("lost", [1] * 65 + [0] * 35), right("won", [1] * 90 + [0] * 10))
    result = compare(before, after)
    assert [round(p.retention.value or 0, 6) for p in result.probes] == [0.5, 2.0]
    assert result.mean.value == pytest.approx(0.75)
    assert (result.worst.value, result.worst_probe) == (pytest.approx(0.5), "lost")
    assert point(before, after)[:2] == (pytest.approx(0.75), pytest.approx(0.5))


def test_what_the_base_never_knew_is_not_counted():
    before = suite(right("guess", [1, 0] * 50), right("known", [1] * 90 + [0] * 10))
    result = compare(before, suite(right("guess", [0, 1] * 50), right("known", [1] * 90 + [0] * 10)))
    guess = result.probes[0]
    assert guess.counted is False and guess.retention.value is None and "chance" in guess.note
    assert result.mean.value == 1.0


def test_drift_is_shown_and_not_counted():
    vectors = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    moved = vectors + np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
    drift = [Measurement("cka", "CKA", "CKA", "cka", 0.0, False, "same", {"vectors": v}) for v in (vectors, moved)]
    result = compare(suite(drift[0], right("a", [1, 1, 1, 0] * 10)), suite(drift[1], right("a", [1, 1, 1, 0] * 10)))
    assert result.mean.value == 1.0
    assert 0 < (result.probes[0].retention.value or 0) < 1
    assert "not counted" in result.probes[0].note


def test_other_items_are_refused():
    other = Measurement("a", "A", "accuracy", "accuracy", 0.5, True, "other", {"right": np.ones(4)})
    with pytest.raises(DataError, match="not of the same items"):
        compare(suite(right("a", [1, 1, 0, 1])), suite(other))


def test_measurements_come_back_from_disk(tmp_path):
    rng = np.random.default_rng(0)
    before = suite(right("a", [1, 0, 1, 1]), ranks("b", rng.normal(size=9), rng.normal(size=9)))
    before.seconds = 1.5
    before.save(tmp_path / "m.npz")
    again = Measurements.load(tmp_path / "m.npz")
    assert (list(again), again.half, again.seconds) == (["a", "b"], "report", 1.5)
    for name in before:
        for key, array in before[name].arrays.items():
            np.testing.assert_array_equal(again[name].arrays[key], array)
        assert again[name].value == before[name].value


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / "m.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match="not a file of measurements"):
        Measurements.load(tmp_path / "m.npz")
