"""A commented recipe for a data file: what was found in it is set, every other key stands as a comment."""

from __future__ import annotations

import textwrap
from typing import Any

from tunewell.recipe import SECTIONS, Recipe, keys_of, yaml_value

WIDTH = 100
ANSWERS = ("question-answering", "text-generation", "translation")  # tasks whose columns have names of their own


def infer(data: str, **asked: Any) -> tuple[dict[str, Any], list[str]]:
    """What a data file says about a recipe.

    Args:
        data: anything that `train` takes.
        asked: keys that the user has settled: text, text_pair, label, group, task, multi_label,
            label_separator, encoding.

    Returns:
        Values of recipe keys, and sentences about how they were found.

    Raises:
        DataError: the file cannot be read, or its columns cannot be told apart.
    """
    from tunewell.data.annotated import the_label
    from tunewell.data.columns import resolve
    from tunewell.data.load import load
    from tunewell.tasks.registry import told_by_columns

    loaded = load(data, encoding=asked.get("encoding") or "auto")
    label = asked.get("label")
    if not label and (only := the_label(loaded.labels, loaded.source)):
        label = [only]
    task = asked.get("task") or "auto"
    told = task if task != "auto" else told_by_columns(loaded.dataset.column_names)
    if told in ANSWERS and not label:
        values: dict[str, Any] = {"train": data, "task": told}
        notices = [f"{len(loaded.dataset):,} rows; columns: {', '.join(loaded.dataset.column_names)}"]
        return values, [*notices, *loaded.notices, f"its columns are those of {values['task']}"]
    columns = resolve(
        loaded.dataset,
        text=asked.get("text"),
        text_pair=asked.get("text_pair"),
        label=tuple(label) if label else None,
        group=asked.get("group"),
        task="auto" if task == "sentiment" else task,
        multi_label=asked.get("multi_label"),
        label_separator=asked.get("label_separator"),
        source=loaded.source,
    )
    values = {"train": data, "text": columns.text, "label": list(columns.label), "task": columns.task}
    if task == "sentiment":
        values["task"] = task
    optional = {"text_pair": columns.text_pair, "group": columns.group, "label_separator": columns.label_separator}
    values |= {key: value for key, value in optional.items() if value is not None}
    if columns.multi_label:
        values["multi_label"] = True
    notices = [f"{len(loaded.dataset):,} rows; columns: {', '.join(loaded.dataset.column_names)}"]
    return values, [*notices, *loaded.notices, *columns.notices]


def compose(values: dict[str, Any], notices: list[str], name: str = "recipe.yaml") -> str:
    """The YAML text: `values` set, all other keys commented out at their default, help above each.

    >>> "train: a.csv" in compose({"train": "a.csv"}, [])
    True
    """
    lines = [
        "# A recipe for tunewell. Lines that begin with `# key:` show defaults; take the # away to change one.",
        "#",
    ]
    for notice in notices:
        lines += _comment(f"- {notice}")
    lines += ["#", f"# Then: tunewell run {name}", ""]
    for section, title in SECTIONS.items():
        lines += [f"# {'-' * 20} {title}", ""]
        for key in keys_of(section):
            field = Recipe.model_fields[key]
            lines += _comment(field.description or "")
            if key in values:
                lines.append(f"{key}: {yaml_value(values[key])}")
            else:
                lines.append(f"# {key}: {yaml_value(field.default)}")
            lines.append("")
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False
    )
