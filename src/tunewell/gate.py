"""Holding a finished run to floors, for people's CI: retention, probes, test metrics.

Reads the records of the run only; nothing is loaded or measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from tunewell.errors import RecipeError, nearest
from tunewell.results import Estimate, Record

Bound = Literal["value", "interval"]


class Check(Record):
    """One floor (a ceiling for metrics where less is better) and what was measured."""

    name: str  # "keep", "keep_worst", "keep similarity", "accuracy"
    wanted: float
    measured: Estimate
    held: float | None  # what the floor was held against: the value, or the interval's worse end
    at_most: bool = False
    passed: bool


class GateResult(Record):
    """All checks of a gate on one run; it passes when all do."""

    run: str
    bound: Bound
    checks: tuple[Check, ...]
    passed: bool


def gate(
    path: str | Path,
    *,
    keep: float | None = None,
    keep_worst: float | None = None,
    keep_probe: Mapping[str, float] | None = None,
    require: Mapping[str, float] | None = None,
    bound: Bound = "value",
) -> GateResult:
    """Check a finished run against floors.

    Args:
        path: the run folder.
        keep, keep_worst: floors on the mean and the worst retention; those of the run's recipe when no
            floor at all is given.
        keep_probe: floors on the retention of single probes, by name.
        require: floors on test metrics by name; ceilings for those where less is better (mae, rmse, ...).
        bound: hold floors against the value, or against the worse end of its 95 % interval.

    Raises:
        RunFolderError: not a finished run. RecipeError: nothing to check, an unknown metric or probe, a floor
            out of range, or retention that the run has not measured.
    """
    from tunewell.evaluate.metrics import LOWER_IS_BETTER
    from tunewell.run import load_run

    run = load_run(path)
    if keep is None and keep_worst is None and not keep_probe and not require:
        keep, keep_worst = run.recipe.keep, run.recipe.keep_worst
        if keep is None and keep_worst is None:
            raise RecipeError(
                "no floor is given, and the run has none of its own",
                where=str(path),
                expected="--keep, --keep_worst, --keep_probe or --require",
                remedy=f"tunewell gate {path} --keep 0.98 --require {run.summary.metric}=0.9",
            )
    checks = []
    retention = run.retention
    floors = {"keep": keep, "keep_worst": keep_worst, **{f"keep_probe {k}": v for k, v in (keep_probe or {}).items()}}
    for name, floor in floors.items():
        if floor is None:
            continue
        if not 0 < floor <= 1:
            raise RecipeError(f"`{name}: {floor:g}`", where=name, expected="a number above 0 and at most 1")
        if retention is None:
            raise RecipeError(
                "the run has measured no retention",
                where=str(path),
                expected="a run with probes",
                remedy="run it again without `probes: none`",
            )
        if name == "keep":
            measured = retention.mean
        elif name == "keep_worst":
            measured = retention.worst
        else:
            probes = {p.name: p.retention for p in retention.probes}
            measured = probes[_known(name.removeprefix("keep_probe "), probes, "probe", path)]
        checks.append(_check(name, floor, measured, bound))
    for name, floor in (require or {}).items():
        measured = run.metrics[_known(name, run.metrics, "metric", path)]
        checks.append(_check(name, floor, measured, bound, at_most=name in LOWER_IS_BETTER))
    return GateResult(run=str(path), bound=bound, checks=tuple(checks), passed=all(c.passed for c in checks))


def _known(name: str, known: Mapping[str, Estimate], kind: str, path: str | Path) -> str:
    if name not in known:
        raise RecipeError(
            f"the run has no {kind} `{name}`",
            where=str(path),
            expected=", ".join(known) or f"a run with a {kind}",
            remedy=nearest(name, known),
        )
    return name


def _check(name: str, wanted: float, measured: Estimate, bound: Bound, at_most: bool = False) -> Check:
    """A value that is not known passes nothing; one without an interval is held by itself."""
    end = measured.high if at_most else measured.low
    held = end if bound == "interval" and end is not None else measured.value
    passed = held is not None and (held <= wanted if at_most else held >= wanted)
    return Check(name=name, wanted=wanted, measured=measured, held=held, at_most=at_most, passed=passed)


def sentence(check: Check) -> str:
    """One check in words: `keep: 0.9712 [0.9650, 0.9771], wanted at least 0.98: NOT MET`."""
    m = check.measured
    value = "not known" if m.value is None else f"{m.value:.4f}"
    interval = f" [{m.low:.4f}, {m.high:.4f}]" if m.low is not None and m.high is not None else ""
    direction = "at most" if check.at_most else "at least"
    return (
        f"{check.name}: {value}{interval}, wanted {direction} {check.wanted:g}: {'met' if check.passed else 'NOT MET'}"
    )


def junit(result: GateResult) -> str:
    """The gate as JUnit XML: one test case a check, as CI servers read it."""
    failed = sum(not c.passed for c in result.checks)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites tests="{len(result.checks)}" failures="{failed}">',
        f'<testsuite name={quoteattr("tunewell gate " + result.run)} tests="{len(result.checks)}" failures="{failed}">',
    ]
    for check in result.checks:
        case = f"<testcase classname={quoteattr('tunewell.' + Path(result.run).name)} name={quoteattr(check.name)}"
        if check.passed:
            lines.append(f"{case}><system-out>{escape(sentence(check))}</system-out></testcase>")
        else:
            lines.append(f"{case}><failure message={quoteattr(sentence(check))}/></testcase>")
    return "\n".join([*lines, "</testsuite>", "</testsuites>", ""])
