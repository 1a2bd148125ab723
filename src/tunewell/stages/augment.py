"""`augment`: changed copies of the training rows, made in the run, and kept only where they help.

1. Copies are made of the training rows alone, each with its origin (augmented.jsonl), and filtered.
2. The run tunes twice with the same seed: on its rows, and on its rows with the copies. The second takes as many
   steps as the first and is validated at the same steps, so that more rows do not mean more tuning.
3. Both answer the validation rows. Copies stay in where they gain more than a standard error of the paired
   difference (the rule of one standard error; Breiman et al., 1984): a smaller gain is as likely luck, and a model
   tuned on the rows alone is the simpler one. A side that is inside the retention budget goes before one that is not.

What was found stands in augment.json, also where it is a loss.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.augment.names import BACKTRANSLATE, MASKED, NONE
from tunewell.errors import RecipeError
from tunewell.folder import fingerprint
from tunewell.report.augment import sentences
from tunewell.results import Augmentation, Choice, Comparison, Training, write_whole
from tunewell.stages.choose import chosen_by_retention
from tunewell.stages.held import Tunings, best_of, finished, joined
from tunewell.stages.job import Job
from tunewell.stages.keys import augment_key
from tunewell.stages.probe import measures
from tunewell.strategies import AUTO

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.recipe import Recipe

FILE, ROWS, COUNTS = "augment.json", "augmented.jsonl", "cache/augmented.json"
WITHOUT, WITH = "without", "augmented"  # names of the two tunings
TASKS = ("text-classification", "text-regression")
COLUMNS = ("text", "text_pair", "label", "augmented_by", "augmented_from")


def wanted(recipe: Recipe) -> bool:
    """Whether a recipe asks for copies."""
    return recipe.augment != [NONE]


def preflight(job: Job) -> None:
    """Refuse what cannot be augmented or judged.

    Raises:
        RecipeError: another task, a search, or no validation rows. ModelError: a model that is not there.
    """
    recipe = job.recipe
    if not wanted(recipe):
        return
    if job.spec.name not in TASKS:
        raise RecipeError(
            f"`augment` copies rows with their label, and this task is {job.spec.name}",
            where="augment",
            expected="a task of " + " or ".join(TASKS),
            remedy="leave it out",
        )
    if recipe.strategies == (AUTO,):
        raise RecipeError(
            "`augment` tunes with and without, and `strategy: auto` is a search",
            where="augment",
            expected="the strategy that the search has chosen",
        )
    if not job.validated:
        raise RecipeError(
            "`augment` is decided on validation rows, and there are none",
            where="validation_size",
            expected="a share above 0, or a file for `validation`",
            remedy="--validation_size 0.2",
        )
    from tunewell.models.load import locate

    names = [recipe.augment_mlm] if MASKED in recipe.augment else []
    for name in [*names, *(recipe.augment_translators if BACKTRANSLATE in recipe.augment else [])]:
        locate(name)


def discard(job: Job) -> None:
    """A run without copies keeps no record of an earlier one in its folder that had some."""
    for name in (FILE, ROWS):
        (job.folder / name).unlink(missing_ok=True)


# ---------------------------------------------------------------- the rows


def added_rows(job: Job) -> tuple[Dataset, dict[str, Any]]:
    """The copies as canonical rows, and the counts; made once and kept in the run folder."""
    key = fingerprint("augment", job.keys.data, job.recipe.seed, augment_key(job.recipe))

    def make() -> dict[str, Any]:
        rows, counts = make_rows(job)
        write_whole(job.folder / ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        write_whole(job.folder / COUNTS, json.dumps(counts, indent=1) + "\n")
        return counts

    def read() -> dict[str, Any]:
        return dict(json.loads((job.folder / COUNTS).read_text(encoding="utf-8")))

    counts = job.folder.step("augment", key, [ROWS, COUNTS], make, read)
    return canonical(job), counts


def canonical(job: Job) -> Dataset:
    """The rows of augmented.jsonl with the columns of the job's training rows."""
    from datasets import Dataset

    train = job.splits["train"]
    lines = [line for line in (job.folder / ROWS).read_text(encoding="utf-8").split("\n") if line]
    found = [json.loads(line) for line in lines]
    if not found:
        return train.select([])
    place = {int(row): i for i, row in enumerate(train["row"])}
    origins = train.select([place[r["augmented_from"]] for r in found]).to_list()
    rows = [{**origin, "text": r["text"]} for origin, r in zip(origins, found, strict=True)]
    return Dataset.from_list(rows, features=train.features)


def make_rows(job: Job) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Copies of the training rows that pass the filters, as they stand in augmented.jsonl, and the counts."""
    from tunewell.augment.copies import copies_of, new, resolved

    recipe, train = job.recipe, job.splits["train"]
    texts = list(train["text"])
    pairs = list(train["text_pair"]) if job.spec.pair else None
    operations = resolved(recipe.augment, texts)
    made = copies_of(
        texts, operations, copies=recipe.augment_factor, share=recipe.augment_share, mlm=recipe.augment_mlm,
        translators=recipe.augment_translators, seed=recipe.seed, echo=job.echo,
    )  # fmt: skip
    left_out: dict[str, int] = {}
    taboo = [t for split in ("validation", "test") for t in job.splits[split]["text"]]
    kept = filtered(job, new(made, texts, left_out, taboo, pairs), left_out)
    by = {name: sum(c.by == name for c in kept) for name in operations}
    job.echo(
        f"augment: {len(kept):,} copies of {len(texts):,} training rows by {', '.join(operations)}"
        + "".join(f"; left out {n:,} {reason}" for reason, n in left_out.items())
    )
    labels, numbers = list(train["label"]), list(train["row"])
    rows = [
        {
            "text": c.text,
            **({"text_pair": pairs[c.at]} if pairs is not None else {}),
            "label": labels[c.at],
            "augmented_by": c.by,
            "augmented_from": int(numbers[c.at]),
        }
        for c in kept
    ]
    return rows, {"operations": list(operations), "made": len(made), "kept": len(kept), "by": by, "left_out": left_out}


def filtered(job: Job, copies: list[Any], left_out: dict[str, int]) -> list[Any]:
    """Copies near their originals and, of classes, of the same label to a linear probe; by the frozen base model."""
    from tunewell.augment.filters import add, agreeing, kept, near
    from tunewell.evaluate.baselines import pair_features

    recipe, train = job.recipe, job.splits["train"]
    agree = recipe.augment_agree and not job.spec.regression
    if not copies or not (agree or recipe.augment_similar > 0):
        return copies

    def vectors(texts: list[str]) -> np.ndarray:
        from tunewell.models.embed import embed

        return embed(job.encoder.model, job.tokenizer, texts, max_length=job.max_length)

    found = vectors([c.text for c in copies])
    if recipe.augment_similar > 0:
        at = sorted({c.at for c in copies})
        place = {i: k for k, i in enumerate(at)}
        originals = vectors(train.select(at)["text"][:])
        good, why = near(originals[[place[c.at] for c in copies]], found, recipe.augment_similar)
        add(left_out, why)
        copies, found = kept(copies, good), found[good]
    if agree and copies:
        targets = job.targets("train")
        x, val_x = job.vectors["train"], job.vectors["validation"]
        if job.spec.pair:
            second = vectors([train[c.at]["text_pair"] for c in copies])
            found = pair_features(np.stack([found, second], axis=1))
            x, val_x = pair_features(x), pair_features(val_x)
        good, why = agreeing(
            x, targets[job.places["train"]], found, targets[[c.at for c in copies]],
            validation=(val_x, job.targets("validation")), classes=len(job.spec.labels), seed=recipe.seed,
        )  # fmt: skip
        add(left_out, why)
        copies = kept(copies, good)
    return copies


# ---------------------------------------------------------------- with and without


def with_rows(job: Job, rows: Dataset, pace: tuple[int, int], name: str = WITH, **keys: Any) -> Job:
    """The job with rows added to those that it learns from, at the pace of another tuning."""
    from datasets import concatenate_datasets

    assert job.max_length and job.scale  # those of the run's own rows
    child = job.with_keys(name, **keys)
    child.splits = {**job.splits, "train": concatenate_datasets([job.splits["train"], rows])}
    child.pace = pace
    return child


def with_and_without(job: Job) -> tuple[Training, Choice]:
    """Tune with and without the copies, keep what is better on validation, and say by how much."""
    if (found := finished(job, [FILE])) is not None:
        return found
    rows, counts = added_rows(job)
    plain = job.with_keys(WITHOUT, augment=[NONE])
    names = job.recipe.strategies
    held = Tunings(job, wanted=measures(job) and chosen_by_retention(job.recipe))
    without = held.tune(plain)
    sides = [best_of(job, held.score(plain, names))]
    if len(rows):
        steps = without.planned_steps
        job.echo(f"augment: now with {len(rows):,} copies, for the same {steps:,} steps and with the same seed")
        child = with_rows(job, rows, (steps, without.eval_steps))
        held.tune(child)
        sides.append(best_of(job, held.score(child, (*names, WITH))))
    first = sum(len(side.candidates) for side in sides[:1])
    places = [next(i for i, c in enumerate(side.candidates) if c.chosen) + k * first for k, side in enumerate(sides)]
    comparison, helps, why = None, False, "no-copies"
    if len(sides) == 2:
        comparison = held.compare(places[1], places[0])
        helps, why = verdict(comparison, sides[1].met, sides[0].met)
    record = Augmentation(
        **counts,
        factor=job.recipe.augment_factor,
        rows=len(job.splits["train"]),
        steps=without.planned_steps,
        eval_steps=without.eval_steps,
        without=sides[0].chosen.score,
        augmented=sides[1].chosen.score if len(sides) == 2 else None,
        comparison=comparison,
        helps=helps,
        why=why,
        seconds={name: round(t.seconds, 2) for name, t in held.trainings.items()},
    )
    record.write(job.folder / FILE)
    job.echo(f"augment: {' '.join(sentences(record))}")
    choice = joined(sides, int(helps))
    kept = "kept" if helps else "left out"
    choice = choice.model_copy(update={"reason": f"{choice.reason}; augment: copies are {kept} ({why})"})
    return held.settle(choice, [FILE]), choice


def verdict(found: Comparison, met: bool | None, met_without: bool | None) -> tuple[bool, str]:
    """Whether the copies stay in, and why: a code whose words are in `report.augment`.

    Args:
        found: the tuning with copies against that without, on validation. met: whether the best candidate with copies
            is inside the retention budget, met_without the one without; None where there is no budget.
    """
    if met is not None and met != met_without:
        return bool(met), "budget-with" if met else "budget-without"
    d = found.difference
    if d.value is None:
        return False, "unknown"
    if d.value <= 0:
        return False, "no-gain"
    if d.low is None or d.high is None:
        return False, "unknown"
    if d.value <= (d.standard_error or 0.0):
        return False, "within"
    return True, "beyond" if found.better else "likely"  # interval and test agree, or not


def followed(job: Job, child: Job) -> Job:
    """A further tuning of the same run (another seed): with the copies where they were kept."""
    if not wanted(job.recipe):
        return child
    record = Augmentation.load(job.folder / FILE)
    if not record.helps:
        return child.with_keys(child.candidate, augment=[NONE])
    return with_rows(child, canonical(job), (record.steps, record.eval_steps), child.candidate)
