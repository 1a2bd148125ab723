"""Before and after: retention of each probe, the suite's mean and worst, with paired intervals.

Retention of a probe is (after − chance) / (before − chance): 1 when nothing is lost, 0 when nothing
but chance is left, above 1 when the probe gained. In the suite's mean each probe counts for at most
1, so that a gain on one ability cannot pay for a loss on another.

Intervals are percentile bootstraps over a probe's items, before and after on the same resample. The
worst probe is the lowest at the point estimate and brings its own interval: bootstrapping the
minimum would be biased downwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tunewell.errors import DataError
from tunewell.results import Estimate, ProbeResult, Retention
from tunewell.retention.measurement import RELATIVE, Measurement, Measurements
from tunewell.retention.probes.agreement import agreeing, divergences
from tunewell.retention.probes.drift import debiased_cka, overlap

BLOCKS = 25  # of texts, left out one at a time for CKA's jackknife


def compare(before: Measurements, after: Measurements, *, seed: int = 42, n_boot: int = 1000) -> Retention:
    """Retention of `after` against `before`.

    Raises:
        DataError: the two were not measured on the same items.
    """
    if list(before) != list(after) or any(before[n].items != after[n].items for n in before):
        raise DataError(
            "the two measurements are not of the same items",
            where="retention",
            expected="the same probes, halves and seed",
            remedy="measure both models again",
        )
    results, draws = [], []
    for name in before:
        result, replicates = _compare_one(before[name], after[name], seed, n_boot)
        results.append(result)
        if result.counted:
            draws.append((result, replicates))
    if draws:
        values = [min(1.0, r.retention.value) for r, _ in draws if r.retention.value is not None]
        capped = np.minimum(1.0, np.stack([d for _, d in draws])).mean(axis=0)
        low, high = np.quantile(capped, [0.025, 0.975])
        n = sum(r.before.n for r, _ in draws)
        mean = Estimate(value=float(np.mean(values)), low=float(low), high=float(high), n=n)
        lowest = min((r for r, _ in draws), key=lambda r: r.retention.value if r.retention.value is not None else 9.0)
        worst, worst_name = lowest.retention, lowest.name
    else:
        mean = worst = Estimate(value=None)
        worst_name = ""
    return Retention(
        half=before.half,
        probes=tuple(results),
        mean=mean,
        worst=worst,
        worst_probe=worst_name,
        seconds=round(before.seconds + after.seconds, 3),
    )


def _compare_one(before: Measurement, after: Measurement, seed: int, n_boot: int) -> tuple[ProbeResult, np.ndarray]:
    """The result of one probe and its bootstrap retentions (n_boot,)."""
    if before.kind == "bits":
        return _compare_bits(before, after, seed, n_boot)
    if before.kind == "kl":
        return _compare_kl(before, after, seed, n_boot)
    a, b = (before.value, after.value) if before.kind not in RELATIVE else (1.0, _relative(before, after))
    first, second = _replicates(before, after, b, seed, n_boot)
    chance = before.chance
    ability = a - chance
    known = before.kind in RELATIVE or bool(np.quantile(first, 0.025) > chance)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.where(first - chance > 1e-9, (second - chance) / (first - chance), np.nan)
    draws = np.nan_to_num(draws, nan=0.0 if not known else float((b - chance) / ability))
    if known:
        low, high = np.quantile(draws, [0.025, 0.975])
        retention = Estimate(value=float((b - chance) / ability), low=float(low), high=float(high), n=before.n)
    else:
        retention = Estimate(value=None, n=before.n)
    note = "" if known else "the base model does no better than chance here, so there is nothing to keep"
    if known and not before.counted:
        note = "drift, not an ability: shown, not counted"
    return ProbeResult(
        name=before.name,
        title=before.title,
        metric=before.metric,
        chance=chance,
        before=_estimate(a, first, before.n),
        after=_estimate(b, second, before.n),
        retention=retention,
        counted=before.counted and known,
        note=note,
    ), draws


def _compare_bits(before: Measurement, after: Measurement, seed: int, n_boot: int) -> tuple[ProbeResult, np.ndarray]:
    """Bits per byte: lower is better, retention is before / after; the same texts are drawn for both."""
    from tunewell.evaluate.statistics import bootstrap_weights

    n, scale = before.n, np.log(2)
    blocks = [
        tuple((m.arrays["nats"] @ w) / scale / (m.arrays["bytes"] @ w) for m in (before, after))
        for w in bootstrap_weights(n, n_boot, seed)
    ]
    first, second = (np.concatenate([b[i] for b in blocks])[:n_boot] for i in (0, 1))
    draws = first / np.maximum(second, 1e-12)
    low, high = np.quantile(draws, [0.025, 0.975])
    a, b = before.value, after.value
    return ProbeResult(
        name=before.name,
        title=before.title,
        metric=before.metric,
        chance=before.chance,
        before=_estimate(a, first, n),
        after=_estimate(b, second, n),
        retention=Estimate(value=a / max(b, 1e-12), low=float(low), high=float(high), n=n),
        counted=before.counted,
        note="lower is better; retention is before / after",
    ), draws


def _compare_kl(before: Measurement, after: Measurement, seed: int, n_boot: int) -> tuple[ProbeResult, np.ndarray]:
    """Forward divergence of the next token: 0 is the base model itself, retention is exp(−divergence)."""
    from tunewell.evaluate.statistics import bootstrap_weights

    nats, places = divergences(*((m.arrays["ids"], m.arrays["logs"]) for m in (before, after)))
    n, value = before.n, float(nats.sum() / places.sum())
    drawn = np.concatenate([(nats @ w) / (places @ w) for w in bootstrap_weights(n, n_boot, seed)])[:n_boot]
    low, high = np.quantile(np.exp(-drawn), [0.025, 0.975])
    return ProbeResult(
        name=before.name,
        title=before.title,
        metric=before.metric,
        chance=before.chance,
        before=Estimate(value=0.0, n=n),
        after=_estimate(value, drawn, n),
        retention=Estimate(value=float(np.exp(-value)), low=float(low), high=float(high), n=n),
        counted=before.counted,
        note="lower is closer; retention is exp(−divergence)" + ("" if before.counted else "; drift, not counted"),
    ), np.exp(-drawn)


def _estimate(value: float, draws: np.ndarray, n: int) -> Estimate:
    if np.ptp(draws) == 0:
        return Estimate(value=value, n=n)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def _relative(before: Measurement, after: Measurement) -> float:
    if before.kind == "agreement":
        same, places = agreeing(before.arrays["ids"], after.arrays["ids"])
        return float(same.sum() / places.sum())
    if before.kind == "kl":
        nats, places = divergences(*((m.arrays["ids"], m.arrays["logs"]) for m in (before, after)))
        return float(nats.sum() / places.sum())
    x, y = before.arrays["vectors"], after.arrays["vectors"]
    return float(overlap(x, y).mean()) if before.kind == "neighbours" else debiased_cka(x, y)


def _replicates(
    before: Measurement, after: Measurement, value: float, seed: int, n_boot: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap figures (n_boot,) of before and after, on the same resamples."""
    from tunewell.evaluate.statistics import bootstrap_weights
    from tunewell.evaluate.weighted import spearman_of

    n = before.n
    if before.kind == "cka":
        # resampled texts would be their own neighbours, so CKA has a jackknife over blocks instead
        error = _cka_error(before.arrays["vectors"], after.arrays["vectors"])
        noise = np.random.default_rng(seed).standard_normal(n_boot)
        return np.ones(n_boot), np.minimum(1.0, value + error * noise)
    if before.kind == "agreement":
        same, places = agreeing(before.arrays["ids"], after.arrays["ids"])
        measures = [_mean_of(np.ones(n)), lambda w: (same @ w) / (places @ w)]
    elif before.kind == "neighbours":
        kept = overlap(before.arrays["vectors"], after.arrays["vectors"])
        measures = [_mean_of(np.ones(n)), _mean_of(kept)]
    elif before.kind == "spearman":
        measures = [spearman_of(m.arrays["cosine"], m.arrays["gold"]) for m in (before, after)]
    else:
        measures = [_mean_of(m.arrays["right"]) for m in (before, after)]
    blocks = [tuple(measure(w) for measure in measures) for w in bootstrap_weights(n, n_boot, seed)]
    first, second = (np.nan_to_num(np.concatenate([b[i] for b in blocks])) for i in (0, 1))
    return first[:n_boot], second[:n_boot]


def _mean_of(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The mean of values (n,) as a function of row weights (n, B) -> (B,)."""
    return lambda weights: values @ weights / len(values)


def _cka_error(x: np.ndarray, y: np.ndarray) -> float:
    """Standard error of debiased CKA by leaving out one block of texts at a time."""
    blocks = np.array_split(np.arange(len(x)), min(BLOCKS, len(x) // 2))
    values = []
    for block in blocks:
        rest = np.setdiff1d(np.arange(len(x)), block)
        values.append(debiased_cka(x[rest], y[rest]))
    g = len(values)
    return float(np.sqrt((g - 1) / g * ((np.array(values) - np.mean(values)) ** 2).sum()))


def point(before: Measurements, after: Measurements) -> tuple[float | None, float | None, dict[str, float]]:
    """Mean, worst and each probe's retention without intervals: quick, for monitors."""
    each = {}
    for name, b in before.items():
        a = after[name]
        value = _relative(b, a) if b.kind in RELATIVE else a.value
        if b.kind == "kl":
            each[name] = float(np.exp(-value))
        elif b.kind == "bits":
            each[name] = b.value / max(value, 1e-12)
        elif b.value - b.chance > 1e-9:
            each[name] = (value - b.chance) / (b.value - b.chance)
    counted = [v for name, v in each.items() if before[name].counted]
    if not counted:
        return None, None, each
    return float(np.mean(np.minimum(1.0, counted))), float(min(counted)), each
