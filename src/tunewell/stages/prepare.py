"""From files to canonical splits: load, resolve columns, split, and account for every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, RecipeError
from tunewell.folder import file_hash, fingerprint
from tunewell.results import Account

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.columns import Columns
    from tunewell.recipe import Recipe
    from tunewell.tasks import TaskSpec

DUPLICATE, BEYOND = "duplicate (duplicates: drop)", "beyond max_train_samples"
WHY = "`strategy: fewshot` on few labels; `validation_size` takes some"
CHOSEN = {DUPLICATE, BEYOND}  # rows left out although they could be learned from
DATA_KEYS = (
    "text",
    "text_pair",
    "aspect",
    "sentiment",
    "polarity",
    "label",
    "question",
    "context",
    "answers",
    "source",
    "target",
    "messages",
    "source_prefix",
    "source_lang",
    "target_lang",
    "group",
    "task",
    "multi_label",
    "label_separator",
    "validation_size",
    "test_size",
    "max_train_samples",
    "encoding",
    "duplicates",
    "seed",
    "metric",
)


@dataclass(frozen=True)
class Prepared:
    """Canonical rows, ready for every later stage."""

    splits: dict[str, Dataset]
    spec: TaskSpec
    columns: Columns
    accounts: list[Account]
    fingerprint: str
    notices: list[str] = field(default_factory=list)
    made: tuple[str, ...] = ()  # splits taken from the training file
    files: dict[str, str] = field(default_factory=dict)  # split -> sha256 of the file that it came from

    def describe(self) -> dict[str, Any]:
        """What `split.json` holds: where each split came from and, where split here, its rows."""
        out: dict[str, Any] = {"fingerprint": self.fingerprint, "split_here": list(self.made), "rows": {}}
        for name, dataset in self.splits.items():
            out["rows"][name] = len(dataset)
        if self.files:
            out["files"] = self.files
        if self.made:
            out["members"] = {name: self.splits[name]["row"][:] for name in self.splits}
        elif any(CHOSEN & set(account.dropped) for account in self.accounts):
            out["members"] = {"train": self.splits["train"]["row"][:]}
        return out


def data_fingerprint(recipe: Recipe) -> str:
    """Changes when a data file or a key that decides about rows changes."""
    return _fingerprint(recipe, _sources(recipe))


def _fingerprint(recipe: Recipe, sources: dict[str, str | None]) -> str:
    return fingerprint("data", sources, {k: getattr(recipe, k) for k in DATA_KEYS})


def file_hashes(recipe: Recipe) -> dict[str, str]:
    """split -> sha256 of its file, of those that are files of this machine."""
    return _of_files(recipe, _sources(recipe))


def _of_files(recipe: Recipe, sources: dict[str, str | None]) -> dict[str, str]:
    return {n: h for n, h in sources.items() if h and Path(getattr(recipe, n)).exists()}


def _sources(recipe: Recipe) -> dict[str, str | None]:
    """split -> sha256 of its file, else its name (a hub id), else None."""
    from tunewell.data.elsewhere import is_elsewhere, local

    sources: dict[str, str | None] = {}
    for name in ("train", "validation", "test"):
        source = getattr(recipe, name)
        try:
            if source and is_elsewhere(source):
                sources[name] = file_hash(local(source))
                continue
            if source and not Path(source).exists() and "," in source:  # two line-aligned files
                hashes = [file_hash(p.strip()) for p in source.split(",") if Path(p.strip()).exists()]
                sources[name] = " ".join(hashes)
                continue
            sources[name] = file_hash(source) if source and Path(source).exists() else source
        except PermissionError:
            raise DataError(
                "no permission to read",
                where=str(source),
                expected="a file that can be read",
                remedy="mend its permissions",
            ) from None
    return sources


def prepare(recipe: Recipe, *, echo: Callable[[str], None] = lambda line: None) -> Prepared:
    """Load all files that the recipe names and split what it does not, as the recipe's task reads them.

    Raises:
        DataError, RecipeError: with the file, row, column or key concerned.
    """
    from tunewell.tasks import task_of

    return task_of(choose_task(recipe)).prepare(recipe, echo=echo)


def choose_task(recipe: Recipe) -> str:
    """The recipe's task; `auto` is told by keys that belong to one task, then by the file's columns.

    Classes and scores are told apart later, by their labels.
    """
    from tunewell.data.load import load
    from tunewell.tasks.registry import told_by_columns, told_by_keys

    if recipe.task != "auto":
        return recipe.task
    if told := told_by_keys(recipe.model_dump(exclude_unset=True)):
        return told
    if recipe.train and recipe.label is None and recipe.text is None:
        found = told_by_columns(load(recipe.train, encoding=recipe.encoding).dataset.column_names)
        if found:
            return found
    return "text-classification"


def prepare_labelled(recipe: Recipe, *, echo: Callable[[str], None] = lambda line: None) -> Prepared:
    """`prepare` for classes and scores."""
    from tunewell.data.annotated import the_label
    from tunewell.data.columns import canonical, refuse_objects, resolve
    from tunewell.data.load import load
    from tunewell.data.split import check_labels
    from tunewell.evaluate.metrics import check_headline
    from tunewell.tasks import spec_of

    if not recipe.train:
        raise RecipeError(
            "`train` is missing",
            where="recipe",
            expected="a data file to learn from",
            remedy="--train reviews.csv, or `train: reviews.csv` in the recipe",
        )
    notices: list[str] = []
    loaded = {"train": load(recipe.train, encoding=recipe.encoding)}
    for name in ("validation", "test"):
        if getattr(recipe, name):
            loaded[name] = load(getattr(recipe, name), encoding=recipe.encoding)
    label = tuple(recipe.label) if recipe.label else None
    if not label and (asked := the_label(loaded["train"].labels, loaded["train"].source)):
        label = (asked,)
    columns = resolve(
        loaded["train"].dataset,
        text=recipe.text,
        text_pair=recipe.text_pair or recipe.aspect,
        label=label,
        group=recipe.group,
        task=label_task(recipe),
        multi_label=recipe.multi_label,
        label_separator=recipe.label_separator,
        source=loaded["train"].source,
    )
    splits, dropped, read = {}, {}, {}
    for name, file in loaded.items():
        refuse_objects(file.objects, columns, source=file.source)
        notices += list(file.notices)
        splits[name], dropped[name] = canonical(file.dataset, columns, source=file.source)
        read[name] = len(file.dataset)
    notices += list(columns.notices)
    sources_of = {name: file.source for name, file in loaded.items()}
    columns, splits, order = with_polarity(recipe, columns, splits, sources_of, notices)

    splits, missing = completed(
        splits,
        dropped["train"],
        recipe,
        source=loaded["train"].source,
        stratify=columns.task != "text-regression",
        notices=notices,
    )
    for name, dataset in splits.items():
        if not len(dataset) and (name != "validation" or recipe.validation):
            raise DataError(
                f"no row is left for {name}",
                where=str(getattr(recipe, name) or recipe.train),
                expected="at least one row with a text and a label",
            )
    spec = spec_of(
        splits,
        task=columns.task,
        multi_label=columns.multi_label,
        pair=columns.text_pair is not None,
        metric=recipe.metric,
        order=order,
    )
    check_headline(spec)
    check_labels(splits, spec)
    accounts = [
        Account(
            split=name,
            source=loaded.get(name, loaded["train"]).source,
            read=len(dataset) + sum(dropped.get(name, {}).values()),
            used=len(dataset),
            dropped=dropped.get(name, {}),
        )
        for name, dataset in splits.items()
    ]
    if sum(a.read for a in accounts) != sum(read.values()):
        raise AssertionError(f"rows do not add up: read {read}, accounts {accounts}")
    for line in notices:
        echo(f"data: {line}")
    sources = _sources(recipe)
    files = _of_files(recipe, sources)
    return Prepared(splits, spec, columns, accounts, _fingerprint(recipe, sources), notices, missing, files)


def is_sentiment(recipe: Recipe) -> bool:
    """Whether the recipe is for sentiment, by name or by keys that belong to it."""
    from tunewell.tasks.registry import told_by_keys

    told = told_by_keys(recipe.model_dump(exclude_unset=True)) if recipe.task == "auto" else recipe.task
    return told == "sentiment"


def label_task(recipe: Recipe) -> str:
    """What `data.columns.resolve` is asked for: the task, of sentiment whether classes or scores."""
    if not is_sentiment(recipe):
        return recipe.task
    told = {"classes": "text-classification", "scores": "text-regression"}
    return told.get(recipe.sentiment, "auto" if recipe.polarity is None else "text-classification")


def with_polarity(
    recipe: Recipe, columns: Columns, splits: dict[str, Dataset], sources: dict[str, str], notices: list[str]
) -> tuple[Columns, dict[str, Dataset], tuple[str, ...]]:
    """Sentiment's labels as classes in order; everything as it is for other tasks and for scores.

    Args:
        notices: what labels were taken for is added.
    """
    from tunewell.tasks import polarity

    if not is_sentiment(recipe) or columns.task == "text-regression":
        return columns, splits, ()
    if columns.multi_label:
        raise DataError(
            "several labels a row do not go with `task: sentiment`",
            where=sources["train"],
            expected="one label a row",
            remedy="with one opinion an aspect: a row for each aspect, its column named by --aspect",
        )
    chosen = polarity.choose(recipe.polarity, sorted(set(splits["train"]["label"])), source=sources["train"])
    made = {name: relabelled(rows, chosen, sources[name]) for name, rows in splits.items()}
    found = set(made["train"]["label"])
    notices.append(f"polarity: {polarity.describe(chosen)} (another with `polarity`)")
    if len(found) < 2:
        raise DataError(
            f"after `polarity` all rows are {found.pop()!r}", where=sources["train"], expected="at least two classes"
        )
    return replace(columns, polarity=chosen), made, polarity.order(chosen, found)


def relabelled(rows: Dataset, chosen: dict[str, str] | str, source: str) -> Dataset:
    """Canonical rows with the classes that a polarity gives to their labels."""
    from tunewell.tasks.polarity import apply

    labels = apply(chosen, list(rows["label"]), list(rows["row"]), source=source)
    return rows.remove_columns("label").add_column("label", labels).select_columns(rows.column_names)


def completed(
    splits: dict[str, Dataset],
    dropped: dict[str, int],
    recipe: Recipe,
    *,
    source: str,
    stratify: bool,
    notices: list[str],
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Split off what is missing, and leave out of the training rows what the recipe does not want.

    Args:
        splits: canonical rows, train at least; dropped: reason -> rows of train, added to here.
        notices: what is to be said of it is added.

    Returns:
        train, validation and test, in this order; the names of those taken from the training rows.
    """
    from tunewell.data.split import split

    missing = tuple(n for n in ("validation", "test") if n not in splits)
    share = validation_share(recipe, splits["train"]["label"][:]) if "validation" in missing and stratify else None
    if recipe.validation_size == 0 and "validation" in missing and not stratify:
        raise RecipeError(
            "`validation_size: 0` is for classes: everything else is chosen by its score on validation rows",
            where="validation_size",
            expected="a share above 0, or a file for `validation`",
        )
    if share == 0:
        splits["validation"] = splits["train"].select([])
        missing = tuple(n for n in missing if n != "validation")
        notices.append("no rows are taken away for validation" + ("" if recipe.validation_size == 0 else f" ({WHY})"))
    if missing:
        parts = split(
            splits["train"],
            validation_size=recipe.validation_size,
            test_size=recipe.test_size,
            seed=recipe.seed,
            need_validation="validation" in missing,
            need_test="test" in missing,
            stratify=stratify,
            source=source,
        )
        splits = {**splits, **parts}
        notices.append(
            f"{' and '.join(missing)} split off {source} with seed {recipe.seed}: "
            + ", ".join(f"{len(splits[n]):,} {n}" for n in ("train", *missing))
        )
    splits = {name: splits[name] for name in ("train", "validation", "test")}
    if recipe.duplicates == "drop":
        splits["train"] = drop_duplicates(splits["train"], dropped)
    if recipe.max_train_samples and len(splits["train"]) > recipe.max_train_samples:
        chosen = np.random.default_rng(recipe.seed).permutation(len(splits["train"]))[: recipe.max_train_samples]
        dropped[BEYOND] = len(splits["train"]) - recipe.max_train_samples
        splits["train"] = splits["train"].select(np.sort(chosen))
    return splits, missing


def validation_share(recipe: Recipe, labels: Sequence[Any]) -> float:
    """Share of the training rows that goes to validation: none for `strategy: fewshot` with few labels a class, where
    every row is worth more to learn from, unless the recipe says how much.
    """
    set_by_user = "validation_size" in recipe.model_fields_set
    return 0.0 if not set_by_user and few_labels(recipe, labels) else recipe.validation_size


def few_labels(recipe: Recipe, labels: Sequence[Any]) -> bool:
    """Whether the recipe is for few labels, and the median class has few."""
    from tunewell.strategies import FEWSHOT
    from tunewell.strategies.fewshot import FEW

    counts = Counter(label for cell in labels for label in (cell if isinstance(cell, list) else [cell]))
    return FEWSHOT in recipe.strategies and bool(counts) and float(np.median(list(counts.values()))) <= FEW


def drop_duplicates(dataset: Dataset, dropped: dict[str, int]) -> Dataset:
    """Keep the first of rows with the same text (and pair) and label; the rest are counted."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    pairs = dataset["text_pair"][:] if "text_pair" in dataset.column_names else [""] * len(dataset)
    for i, key in enumerate(zip(dataset["text"][:], pairs, map(str, dataset["label"][:]), strict=True)):
        if key not in seen:
            seen.add(key)
            kept.append(i)
    if len(kept) < len(dataset):
        dropped[DUPLICATE] = len(dataset) - len(kept)
        dataset = dataset.select(kept)
    return dataset


def choose_max_length(recipe: Recipe, splits: dict[str, Dataset], tokenizer: Any, limit: int, pair: bool) -> int:
    """Longest input in tokens: the recipe's, or the 99.5 % quantile of the training rows within the window.

    The quantile is taken over at most 20,000 rows and rounded up to a multiple of 8.
    """
    if (asked := length_asked(recipe, limit)) is not None:
        return asked
    train = splits["train"]
    if len(train) > 20_000:
        train = train.select(np.sort(np.random.default_rng(recipe.seed).permutation(len(train))[:20_000]))
    encoded = tokenizer(train["text"][:], train["text_pair"][:] if pair else None, truncation=True, max_length=limit)
    return usual_length([len(ids) for ids in encoded["input_ids"]], limit)


def length_asked(recipe: Recipe, limit: int) -> int | None:
    """The recipe's own longest input; None where it names none.

    Raises:
        RecipeError: it is beyond the model's window of `limit` tokens.
    """
    if recipe.max_length is not None and recipe.max_length > limit:
        raise RecipeError(
            f"`max_length: {recipe.max_length}` is beyond the model's window",
            where="max_length",
            expected=f"at most {limit} for {recipe.model}",
        )
    return recipe.max_length


def long_row(lengths: Sequence[int]) -> int:
    """The 99.5 % quantile of lengths, which is one of them."""
    return int(np.quantile(lengths, 0.995, method="higher"))


def usual_length(lengths: Sequence[int], limit: int) -> int:
    """Longest input in tokens: a long row's, up to a multiple of 8, 16 at least and `limit` at most.

    >>> usual_length([5, 9, 33], 512), usual_length([5], 512), usual_length([900], 512)
    (40, 16, 512)
    """
    return min(limit, max(16, -(-long_row(lengths) // 8) * 8))
