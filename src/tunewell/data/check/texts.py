"""Findings about texts: duplicates, leakage between splits, characters, personal data, languages, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tunewell.data.check.scan import PATTERNS, SHOWN, Scan
from tunewell.results import Account, Finding

SAMPLED = 2_000  # texts whose language is looked at
LEAST_LATIN = 25  # characters below which the language of a Latin text is not guessed

SCRIPTS = (
    ("zh", 0x4E00, 0x9FFF), ("zh", 0x3400, 0x4DBF), ("ja", 0x3040, 0x30FF), ("ko", 0xAC00, 0xD7AF),
    ("Cyrillic", 0x0400, 0x04FF), ("ar", 0x0600, 0x06FF), ("he", 0x0590, 0x05FF), ("th", 0x0E00, 0x0E7F),
    ("hi", 0x0900, 0x097F), ("el", 0x0370, 0x03FF), ("Latin", 0x0041, 0x024F),
)  # fmt: skip


def dropped(accounts: Sequence[Account]) -> list[Finding]:
    """What loading had to leave out, by reason."""
    out = []
    for account in accounts:
        for reason, count in account.dropped.items():
            share = count / max(1, account.read)
            out.append(
                Finding(
                    code="dropped-" + reason.split(" (")[0].replace(" ", "-"),
                    severity="warning" if share > 0.01 else "notice",
                    title=f"Rows not used: {reason}",
                    count=count,
                    split=account.split,
                    message=f"{count:,} of {account.read:,} rows of {account.source} are not used: {reason}.",
                    remedy="fill in or remove these rows" if "max_train" not in reason else "raise max_train_samples",
                )
            )
    return out


def duplicates(scan: Scan, labels: np.ndarray, regression: bool) -> list[Finding]:
    """Same text in a split: with the same label, and with different ones."""
    out = []
    for split in scan.bounds:
        rows = np.arange(*scan.bounds[split])
        groups = _groups(scan.keys[scan.rows(split)], rows)
        same = [g for g in groups if len(set(labels[g].tolist())) == 1]
        other = [g for g in groups if len(set(labels[g].tolist())) > 1]
        repeated = sum(len(g) - 1 for g in same)
        if repeated:
            out.append(
                Finding(
                    code="duplicates",
                    severity="warning" if repeated > 0.01 * len(rows) else "notice",
                    split=split,
                    title="Duplicate texts",
                    count=repeated,
                    message=f"{repeated:,} rows of {split} repeat an earlier row with the same label "
                    f"({len(same):,} texts; case, spaces and letter forms are not told apart).",
                    examples=tuple(scan.example(g[1], f"as {scan.example(g[0]).where}") for g in same[:SHOWN]),
                    remedy="`duplicates: drop` uses each text once in training; repeated rows weigh more",
                )
            )
        if other:
            count = sum(len(g) for g in other)
            severity = "warning" if regression or count <= 0.05 * len(rows) else "error"
            out.append(
                Finding(
                    code="conflicting-labels",
                    severity=severity,
                    split=split,
                    title="Same text, different labels",
                    count=count,
                    message=f"{count:,} rows of {split} share their text with a row of another label "
                    f"({len(other):,} texts): "
                    "no model can get all of them right.",
                    examples=tuple(scan.example(r, scan.label_note(r)) for g in other[: SHOWN // 2 + 1] for r in g[:2])[
                        : SHOWN + 1
                    ],
                    remedy="decide on one label a text, or remove these rows",
                )
            )
    return out


def _groups(keys: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Rows with equal keys, groups of two or more, in order of their first row."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, len(keys)])
    groups = [rows[order[s : s + n]] for s, n in zip(starts[sizes > 1], sizes[sizes > 1], strict=True)]
    return sorted(groups, key=lambda g: g[0])


def leakage(scan: Scan, near: Sequence[tuple[int, int, float]]) -> list[Finding]:
    """Texts that stand in two splits, exactly or nearly, and near duplicates within a split."""
    out = []
    for a, b in combinations(scan.bounds, 2):
        rows_a, rows_b = (np.arange(*scan.bounds[s]) for s in (a, b))
        leaked = rows_b[np.isin(scan.keys[rows_b], scan.keys[rows_a])]
        if len(leaked):
            source = {int(k): int(r) for k, r in zip(scan.keys[rows_a][::-1], rows_a[::-1], strict=True)}
            examples = tuple(
                scan.example(r, f"as {scan.example(source[int(scan.keys[r])]).where}") for r in leaked[:SHOWN]
            )
            out.append(
                Finding(
                    code="leakage",
                    severity="error",
                    split=f"{a}/{b}",
                    title=f"Leakage: texts of {b} that are also in {a}",
                    count=len(leaked),
                    message=f"{len(leaked):,} of {len(rows_b):,} rows of {b} ({len(leaked) / len(rows_b):.1%}) "
                    f"{'has' if len(leaked) == 1 else 'have'} a text that is also in {a}: "
                    f"scores on {b} will be too good.",
                    examples=examples,
                    remedy=f"remove these rows from {a} or from {b}; files split by tunewell never share a text",
                )
            )
    by_split: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
    for x, y, similarity in near:
        by_split.setdefault((scan.split_of(x), scan.split_of(y)), []).append((x, y, similarity))
    for (a, b), pairs in by_split.items():
        rows = len({y for _, y, _ in pairs})
        pairs = sorted(pairs, key=lambda p: (-p[2], p[0]))
        examples = tuple(
            scan.example(y, f"{s:.0%} like {scan.example(x).where}: {scan.example(x).text[:80]}")
            for x, y, s in pairs[:SHOWN]
        )
        if a == b:
            out.append(
                Finding(
                    code="near-duplicates",
                    severity="notice",
                    split=a,
                    title="Near duplicates",
                    count=rows,
                    examples=examples,
                    message=f"{rows:,} rows of {a} are at least 80 % like another row "
                    "(Jaccard similarity of character 4-grams).",
                    remedy="templates and retweets make a set look larger than it is; keep one of each in that case",
                )
            )
        else:
            share = rows / max(1, scan.bounds[b][1] - scan.bounds[b][0])
            out.append(
                Finding(
                    code="near-leakage",
                    severity="warning",
                    split=f"{a}/{b}",
                    title=f"Rows of {b} nearly the same as rows of {a}",
                    count=rows,
                    examples=examples,
                    message=f"{rows:,} rows of {b} ({share:.1%}) are at least 80 % like a row of {a}: "
                    f"scores on {b} may be too good.",
                    remedy="name a `group` column that keeps such rows together, or remove them",
                )
            )
    return out


def patterns(scan: Scan) -> list[Finding]:
    """Broken characters, HTML remains, hints of personal data (masked in the examples)."""
    about = {
        "broken-characters": (
            "Broken characters",
            "hold characters that were broken by a wrong encoding",
            "warning",
            "read the file with its right `encoding`, or repair it at its source",
        ),
        "html": (
            "HTML remains",
            "hold HTML tags or entities",
            "notice",
            "strip the markup if the model will not see it later",
        ),
        "email": (
            "E-mail addresses",
            "hold what looks like an e-mail address",
            "warning",
            "mask personal data before training; a model can repeat what it has learned",
        ),
        "phone": (
            "Phone numbers",
            "hold what looks like a phone number",
            "notice",
            "mask personal data before training",
        ),
        "card": (
            "Payment card numbers",
            "hold what passes as a payment card number",
            "warning",
            "mask personal data before training",
        ),
    }
    out = []
    for code, (title, what, severity, remedy) in about.items():
        hits = scan.hits[code]
        if hits.count:
            mask = (lambda text, p=PATTERNS[code]: p.sub(_mask, text)) if code in ("email", "phone", "card") else None
            out.append(
                Finding(
                    code=code,
                    severity=severity,
                    title=title,
                    count=hits.count,
                    remedy=remedy,
                    message=f"{hits.count:,} rows {what}.",
                    examples=tuple(scan.example(r, mask=mask) for r in hits.rows),
                )
            )
    return out


def _mask(found) -> str:
    text = found.group()
    return text[0] + "•" * max(3, len(text) - 2) + text[-1]


def languages(scan: Scan, seed: int) -> tuple[dict[str, float], list[Finding]]:
    """Languages by script and, for longer Latin and Cyrillic texts, by py3langid, over a seeded sample."""
    total = max((b for _, b in scan.bounds.values()), default=0)
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLED])
    found: Counter[str] = Counter()
    shown: dict[str, list[int]] = {}
    for row in rows:
        language = language_of(scan.get(int(row))["text"])
        if language:
            found[language] += 1
            shown.setdefault(language, []).append(int(row))
    known = sum(found.values())
    shares = (
        {name: round(count / known, 4) for name, count in found.most_common() if count / known >= 0.005}
        if known
        else {}
    )
    second = [(name, share) for name, share in list(shares.items())[1:] if share >= 0.05]
    if not second:
        return shares, []
    main = next(iter(shares))
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.05)
    return shares, [
        Finding(
            code="language-mix",
            severity="notice",
            title="Several languages",
            count=sum(found[n] for n, _ in second),
            message=f"The texts are in several languages: {text} (of {known:,} sampled texts whose language is clear).",
            examples=tuple(scan.example(r, name) for name, _ in second for r in shown[name][:2])[:SHOWN],
            remedy=f"make sure that the base model knows more than {main}",
        )
    ]


def language_of(text: str) -> str:
    """ISO 639-1 code or script of a text; empty when it cannot be told.

    >>> language_of("这家酒店非常好"), language_of("ok"), language_of("Das Essen war leider schon wieder kalt geworden")
    ('zh', '', 'de')
    """
    counts: Counter[str] = Counter()
    for char in text[:400]:
        point = ord(char)
        if point > 0x24F or char.isalpha():
            counts.update(name for name, low, high in SCRIPTS if low <= point <= high)
    if not counts:
        return ""
    if counts["ja"] and counts["ja"] + counts["zh"] > counts["Latin"]:
        return "ja"
    script = counts.most_common(1)[0][0]
    if script not in ("Latin", "Cyrillic"):
        return script
    if sum(counts.values()) < LEAST_LATIN:
        return ""
    import py3langid

    return str(py3langid.classify(text[:400])[0])


def lengths(scan: Scan, max_length: int | None) -> tuple[dict[str, float], list[Finding]]:
    """Quantiles of token counts, and what is cut at `max_length`."""
    if not scan.tokens.any():
        return {}, []
    quantiles = {str(q): float(np.quantile(scan.tokens, q)) for q in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)}
    if max_length is None:
        return quantiles, []
    long = np.flatnonzero(scan.tokens > max_length)
    if not len(long):
        return quantiles, []
    share, cut = len(long) / len(scan.tokens), int((scan.tokens[long] - max_length).sum())
    worst = long[np.argsort(-scan.tokens[long], kind="stable")][:SHOWN]
    return quantiles, [
        Finding(
            code="truncated",
            severity="warning" if share > 0.05 else "notice",
            title="Longer than the input window",
            count=len(long),
            message=f"{len(long):,} rows ({share:.1%}) are longer than {max_length} tokens; {cut:,} tokens "
            f"({cut / scan.tokens.sum():.1%} of all) are not seen by the model.",
            examples=tuple(scan.example(r, f"{scan.tokens[r]:,} tokens") for r in worst),
            remedy="raise max_length (slower), or put what decides at the beginning of the text",
        )
    ]
