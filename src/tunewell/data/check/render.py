"""A check report as text, for the terminal."""

from __future__ import annotations

from tunewell.results import CheckReport, Finding
from tunewell.shown import cut

MARKS = {"error": "✗", "warning": "!", "notice": "·"}
COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m", "notice": "\x1b[2m"}


def render(report: CheckReport, *, colour: bool = False) -> str:
    """Findings with counts, examples and remedies, then the account of rows."""
    columns = ", ".join(f"{role}: {name}" for role, name in report.columns.items())
    lines = [f"{report.task}, {report.rows:,} rows ({columns})", ""]
    if not report.findings:
        lines += ["nothing found", ""]
    for finding in report.findings:
        lines += [*_finding(finding, colour), ""]
    lines += _account(report)
    by_severity = {s: sum(f.severity == s for f in report.findings) for s in MARKS}
    lines += [
        "",
        ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in by_severity.items())
        + f"; {report.rows:,} rows in {report.seconds:.1f} s",
    ]
    return "\n".join(lines)


def _finding(finding: Finding, colour: bool) -> list[str]:
    where = f" [{finding.split}]" if finding.split else ""
    head = f"{MARKS[finding.severity]} {finding.severity}: {finding.title}{where}: {finding.count:,}"
    lines = [f"{COLOURS[finding.severity]}{head}\x1b[0m" if colour else head, f"    {finding.message}"]
    for example in finding.examples[:3]:
        note = f"  ({_line(example.note)})" if example.note else ""
        lines.append(f"      {example.where}  {_line(example.text)}{note}")
    if finding.remedy:
        lines.append(f"    → {finding.remedy}")
    return lines


def _line(text: str, width: int = 100) -> str:
    flat = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return cut(flat, width)


def _account(report: CheckReport) -> list[str]:
    rows = [("", "read", "used", "not used", "truncated", "tokens cut")]
    for a in report.accounts:
        cut = f"{a.tokens_cut / a.tokens:.1%}" if a.tokens else "–"
        rows.append((a.split, f"{a.read:,}", f"{a.used:,}", f"{sum(a.dropped.values()):,}", f"{a.truncated:,}", cut))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(r, widths, strict=True)))
        for r in rows
    ]
    reasons = [f"  {a.split}: {n:,} {reason}" for a in report.accounts for reason, n in a.dropped.items()]
    return ["account of rows", *lines, *reasons]
