"""The data check as a stage of a run."""

from __future__ import annotations

from tunewell.errors import GateError
from tunewell.results import CheckReport
from tunewell.stages.job import Job


def check(job: Job) -> CheckReport:
    """What is wrong with the data, written to check.json.

    Raises:
        GateError: the recipe is `strict` and there are errors; check.json is written before.
    """
    path = job.folder / "check.json"

    def make() -> CheckReport:
        report = check_rows(job)
        report.write(path)
        return report

    report = job.folder.step("check", job.keys.data, ["check.json"], make, lambda: CheckReport.load(path))
    if job.recipe.strict and report.errors:
        raise strict_error(report, str(job.recipe.train))
    return report


def strict_error(report: CheckReport, where: str) -> GateError:
    first, n = report.errors[0], len(report.errors)
    return GateError(
        f"the check found {n} error{'s' if n > 1 else ''}, the first: {first.title}: {first.message}",
        where=where,
        remedy=first.remedy or "mend the rows that `tunewell check` names",
    )


def check_rows(job: Job, *, alone: bool = False) -> CheckReport:
    """The check of a job's splits, as its task makes it.

    Args:
        alone: nothing but the check is wanted, see `tasks.base.Task.check`.
    """
    from tunewell.data.check.base_model import unknown_language

    report = job.task.check(job, alone=alone)
    if found := unknown_language(report, job.recipe.model):
        report = report.model_copy(update={"findings": (*report.errors, found, *report.findings[len(report.errors) :])})
        job.echo(f"check: {found.message} Try: {found.remedy}")
    counts = {s: sum(f.severity == s for f in report.findings) for s in ("error", "warning", "notice")}
    job.echo("check: " + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items()))
    return report
