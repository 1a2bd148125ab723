"""Findings about labels: variants in spelling, rare and unbalanced classes, drift between splits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.results import Finding

if TYPE_CHECKING:
    from datasets import Dataset

FEW, RATIO = 10, 10.0  # rows below which a class is rare; largest over smallest class that counts as unbalanced


def counts(splits: dict[str, Dataset], multi_label: bool) -> dict[str, dict[str, int]]:
    """split -> label -> rows."""
    out = {}
    for name, dataset in splits.items():
        column = dataset["label"][:]
        found = Counter(label for cell in column for label in cell) if multi_label else Counter(column)
        out[name] = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return out


def codes(splits: dict[str, Dataset]) -> np.ndarray:
    """(N,) a number for each row's label, equal where the labels are."""
    known: dict[Any, int] = {}
    out = []
    for dataset in splits.values():
        for cell in dataset["label"][:]:
            key = tuple(sorted(cell)) if isinstance(cell, list) else cell
            out.append(known.setdefault(key, len(known)))
    return np.array(out, dtype=np.int64)


def classes(found: dict[str, dict[str, int]]) -> list[Finding]:
    """Variants in spelling, rare classes, imbalance, splits whose shares differ."""
    out = []
    total: Counter[str] = Counter()
    for by_label in found.values():
        total.update(by_label)
    variants: dict[str, list[str]] = {}
    for label in total:
        variants.setdefault(" ".join(label.casefold().split()), []).append(label)
    for names in variants.values():
        if len(names) > 1:
            names = sorted(names, key=lambda n: -total[n])
            out.append(
                Finding(
                    code="label-variants",
                    severity="error",
                    title="Labels that differ only in case or spaces",
                    count=sum(total[n] for n in names[1:]),
                    message="These stand as classes of their own: "
                    + ", ".join(f"{n!r} ({total[n]:,})" for n in names)
                    + ".",
                    remedy=f"spell them all {names[0].strip()!r}",
                )
            )
    train = found["train"]
    rare = {label: n for label, n in train.items() if n < FEW}
    if rare:
        listed = ", ".join(f"{label} ({n})" for label, n in list(rare.items())[:12]) + (" …" if len(rare) > 12 else "")
        out.append(
            Finding(
                code="rare-classes",
                severity="warning",
                split="train",
                title=f"Classes with fewer than {FEW} training rows",
                count=len(rare),
                message=f"{len(rare)} of {len(train)} classes have fewer than {FEW} rows to learn from: {listed}.",
                remedy="label more of these, merge them, or leave them out",
            )
        )
    largest, smallest = max(train.values()), min(train.values())
    if len(train) > 1 and largest / smallest >= RATIO:
        names = list(train)
        out.append(
            Finding(
                code="imbalance",
                severity="warning",
                split="train",
                title="Unbalanced classes",
                count=largest,
                message=f"{names[0]!r} has {largest:,} training rows, {names[-1]!r} has {smallest:,}: "
                f"{largest / smallest:.0f} times fewer.",
                remedy="look at f1_macro and the per-class table; `class_weight: balanced` or `loss: focal` may help",
            )
        )
    out += _drift(found)
    return out


def _drift(found: dict[str, dict[str, int]]) -> list[Finding]:
    """Splits whose class shares differ from train's beyond chance (chi-squared test, p < 0.001, and by 5 points)."""
    from scipy.stats import chi2_contingency

    out = []
    for name in found:
        if name == "train" or not found[name]:
            continue
        labels = sorted(set(found["train"]) | set(found[name]))
        table = np.array([[found[s].get(label, 0) for label in labels] for s in ("train", name)])
        shares = table / table.sum(axis=1, keepdims=True)
        gap = np.abs(shares[0] - shares[1])
        if len(labels) > 1 and gap.max() > 0.05 and chi2_contingency(table).pvalue < 0.001:
            i = int(gap.argmax())
            out.append(
                Finding(
                    code="label-drift",
                    severity="warning",
                    split=f"train/{name}",
                    title="Class shares differ between splits",
                    count=int(table[1].sum()),
                    message=f"{labels[i]!r} is {shares[0][i]:.0%} of train but {shares[1][i]:.0%} of {name}.",
                    remedy="make sure that both were drawn in the same way, or expect the score to differ in use",
                )
            )
    return out


def summary(splits: dict[str, Dataset]) -> dict[str, float]:
    """Regression: figures of the training labels."""
    y = np.asarray(splits["train"]["label"], dtype=np.float64)
    return {
        "min": float(y.min()),
        "max": float(y.max()),
        "mean": float(y.mean()),
        "std": float(y.std()),
        "distinct": float(len(np.unique(y))),
    }


def groups(splits: dict[str, Dataset]) -> list[Finding]:
    """Groups that stand in two splits."""
    names = list(splits)
    if any("group" not in splits[n].column_names for n in names):
        return []
    out = []
    for i, a in enumerate(names):
        known = set(splits[a]["group"][:])
        for b in names[i + 1 :]:
            shared = sorted(known & set(splits[b]["group"][:]))
            if shared:
                out.append(
                    Finding(
                        code="group-leakage",
                        severity="error",
                        split=f"{a}/{b}",
                        title=f"Groups of {b} that are also in {a}",
                        count=len(shared),
                        message=f"{len(shared):,} groups are in both {a} and {b}: "
                        + ", ".join(map(str, shared[:8]))
                        + (" …" if len(shared) > 8 else "")
                        + ".",
                        remedy=f"move each group wholly to {a} or {b}",
                    )
                )
    return out
