"""The model card: README.md beside the model, with the hub's metadata block, written from the records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewell.data.secrets import shown_name
from tunewell.errors import RunFolderError
from tunewell.report.augment import sentences
from tunewell.report.records import Records, pipeline_of, read, usage
from tunewell.report.verdict import interval, number, verdict
from tunewell.results import write_whole

HUB_METRICS = {
    "f1_macro": "f1",
    "f1_micro": "f1",
    "f1_weighted": "f1",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "r2": "r_squared",
}
LANGUAGES = {
    "en",
    "zh",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "ru",
    "ja",
    "ko",
    "ar",
    "pl",
    "tr",
    "sv",
    "da",
    "fi",
    "cs",
    "hi",
}


def write_card(run_dir: str | Path) -> Path:
    """Write model/README.md of a finished run.

    Raises:
        RunFolderError: the run has no model yet.
    """
    records = read(run_dir)
    folder = records.folder / "model"
    if not folder.is_dir():
        raise RunFolderError("has no model yet", where=str(run_dir), expected="a finished run")
    path = folder / "README.md"
    write_whole(path, card(records))
    return path


def card(records: Records) -> str:
    """The card as Markdown."""
    import yaml

    front = yaml.safe_dump(_metadata(records), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{_body(records)}"


def _metadata(records: Records) -> dict[str, Any]:
    base = str(records.recipe.get("model", ""))
    base = {"all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2"}.get(base, base)
    out: dict[str, Any] = {}
    shares = records.check.languages if records.check else {}
    spoken = [name for name, share in shares.items() if name in LANGUAGES and share >= 0.05]
    if spoken:
        out["language"] = spoken
    out["library_name"] = "transformers"
    out["pipeline_tag"] = pipeline_of(records)
    if base and not base.startswith((".", "/", "~")):
        out["base_model"] = base
    out["tags"] = ["tunewell", *(records.training.strategy if records.training else ())]
    e = records.evaluation
    if e is not None and records.summary is not None:
        results = [
            {"type": HUB_METRICS.get(name, name), "name": name, "value": round(v.value, 4)}
            for name, v in e.metrics.items()
            if v.value is not None
        ]
        out["metrics"] = sorted({r["type"] for r in results})
        data = shown_name(str(records.recipe.get("train") or "data"))
        out["model-index"] = [
            {
                "name": records.folder.resolve().name,
                "results": [
                    {
                        "task": {"type": pipeline_of(records), "name": records.summary.task},
                        "dataset": {"name": data, "type": data, "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ]
    return out


def _plain(text: str) -> str:
    """A name from data as plain words in Markdown: no tag, no new line, no end of a table cell."""
    safe = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + c if c in "\\`*_[]|#" else c for c in safe)


def _body(records: Records) -> str:
    name = records.folder.resolve().name
    lines = [f"# {_plain(name)}", ""]
    if records.summary is not None:
        lines += [
            f"{_plain(records.summary.model)} tuned for {records.summary.task} with "
            f"[tunewell](https://github.com/tunewell/tunewell), strategy {' + '.join(records.summary.strategy)}.",
            "",
        ]
    u = records.unlabelled
    if u is not None and (best := u.winner) is not None:
        lines += [
            f"It also learned from texts without labels ({u.pool:,} texts, {best.method}): {u.metric} on "
            f"{u.judged} {number(best.score.value, 4)} with them, {number(u.without.value, 4)} without.",
            "",
        ]
    lines += [*(sentence.replace("<", "&lt;") for sentence in verdict(records)), ""]
    if records.augment is not None and records.augment.helps:  # the model has learned from rows that were made
        lines += [_plain(" ".join(sentences(records.augment))), ""]
    e = records.evaluation
    if e is not None:
        lines += [f"## Gained (test, {e.n:,} rows)", "", "| metric | value | 95 % interval |", "|---|---|---|"]
        lines += [f"| {k} | {number(v.value, 4)} | {interval(v, 4)} |" for k, v in e.metrics.items()]
        for b in records.baselines:
            h = b.evaluation.headline
            lines.append(f"| {e.metric} of the baseline {_plain(b.title)} | {number(h.value, 4)} | {interval(h, 4)} |")
        lines.append("")
    if records.retention is not None and records.retention.probes:
        lines += [
            "## Kept (retention of the base model's abilities)",
            "",
            "| probe | before | after | retention | 95 % interval |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {_plain(p.title)}{'' if p.counted else ' (not counted)'} | {number(p.before.value, 4)} | "
            f"{number(p.after.value, 4)} | "
            f"{number(p.retention.value, 4)} | {interval(p.retention, 4)} |"
            for p in records.retention.probes
        ]
        m = records.retention.mean
        lines += [f"| mean | | | {number(m.value, 4)} | {interval(m, 4)} |", ""]
    lines += ["## Use", "", "```python", *usage(records, "path/to/this/folder"), "```", ""]
    if e is not None and e.labels:
        shown = ", ".join(map(_plain, e.labels[:30])) + (" …" if len(e.labels) > 30 else "")
        lines += [f"Labels: {shown}", ""]
    lines += [
        "## Limits",
        "",
        "Measured on data like its training data only; other sources may differ. Retention is what the named "
        "probes measure, no more. The licence follows the base model's and the data's.",
        "",
    ]
    return "\n".join(lines)
