"""The data check as a stage of a run."""

from __future__ import annotations

from tunewell.errors import GateError
from tunewell.results import CheckReport
from tunewell.stages.job import Job

EMBEDDED_ALONE = 2_000  # training rows up to which `tunewell check` embeds them


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
    """The check of a job's splits.

    Args:
        alone: nothing but the check is wanted. In a run the base model's embeddings of up to 20,000 training
            rows are needed anyway, so label suspects come from them; alone only a small set is embedded, and
            a larger one is judged by TF-IDF features, which take seconds.
    """
    from tunewell.data.check import check as check_data

    columns = job.prepared.columns
    roles = {"text": columns.text, "label": ", ".join(columns.label)}
    roles |= {k: v for k in ("text_pair", "group") if (v := getattr(columns, k))}
    vectors = None
    if not job.spec.multi_label and not (alone and len(job.splits["train"]) > EMBEDDED_ALONE):
        found = job.embed("train") if alone else job.vectors["train"]
        vectors = found.reshape(len(found), -1)
    report = check_data(
        job.splits,
        spec=job.spec,
        accounts=job.prepared.accounts,
        columns=roles,
        tokenizer=job.tokenizer,
        max_length=job.max_length,
        embeddings=vectors,
        embedded=job.places["train"],
        seed=job.recipe.seed,
    )
    counts = {s: sum(f.severity == s for f in report.findings) for s in ("error", "warning", "notice")}
    job.echo("check: " + ", ".join(f"{n} {s}{'s' if n != 1 else ''}" for s, n in counts.items()))
    return report
