"""What a run of translation or instruction tuning measures of retention: which suite, and the model as it asks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunewell.tasks.generation import pair_checks
from tunewell.tasks.generation.models import Kind

if TYPE_CHECKING:
    from tunewell.stages.job import Job
    from tunewell.tasks.generation.task import Generation


def source_of(job: Job) -> str | None:
    """ISO 639-1 code of the language that is translated, None where neither recipe nor column names tell."""
    columns = job.prepared.columns
    return pair_checks.languages_of(job.recipe, (columns.text, columns.label[0]))[0]


def measurable(job: Job, kind: Kind) -> bool:
    """Decoders always; an encoder-decoder on general English or on the user's own pairs; an encoder that is only to
    become one writes nothing yet."""
    if kind != "encoder-decoder":
        return kind == "decoder"
    recipe = job.recipe
    return source_of(job) in (None, "en") or bool(recipe.probe_files) or not {"auto", "none"} & set(recipe.probes)


def suite_of(task: Generation, job: Job, half: Any, kind: Kind) -> Any:
    """Language probes of a decoder, translating probes of an encoder-decoder."""
    recipe = job.recipe
    if kind == "decoder":
        from tunewell.retention.language import load_language_suite

        return load_language_suite(recipe.probes, recipe.probe_files, half=half, seed=recipe.seed)
    from tunewell.retention.translating import load_translating_suite

    columns = job.prepared.columns
    return load_translating_suite(
        recipe.probes,
        recipe.probe_files,
        write=_base_writes(task, job, half),
        columns=(columns.text, columns.label[0]),
        source=source_of(job),
        half=half,
        seed=recipe.seed,
    )


def asked(task: Generation, job: Job, model: Any, kind: Kind, *, bf16: bool = False) -> Any:
    """A model as its suite asks it; encoder-decoders, which are held to the base's own words, in fp32 always."""
    if kind != "decoder":
        return task.writer(job, model)
    from tunewell.retention.language import surprise_of

    return surprise_of(model, job.tokenizer, bf16=bf16)


def _base_writes(task: Generation, job: Job, half: str) -> Callable[[Sequence[str]], list[str]]:
    """The base model's own translations of a half's sentences; written once a run folder."""
    from tunewell.results import write_whole
    from tunewell.retention.translating import greedy

    path = job.folder.path / "probes" / f"base-writes-{half}.json"

    def write(texts: Sequence[str]) -> list[str]:
        def make() -> list[str]:
            job.echo(f"probe: the base model translates {len(texts)} general sentences, {half} half")
            writer: Any = task.writer(job, task.base_model(job))
            written = greedy(writer, texts)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(dict(zip(texts, written, strict=True)), ensure_ascii=False, indent=0))
            return written

        def read() -> list[str]:
            known = json.loads(path.read_text(encoding="utf-8"))
            return [known[text] for text in texts]

        name = f"probes/base-writes-{half}.json"
        return job.folder.step(f"base-writes-{half}", job.keys.probe, [name], make, read)

    return write
