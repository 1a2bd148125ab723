"""The YAML file of a sequence, validated as a whole; all mistakes are reported together.

Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tunewell.errors import RecipeError, nearest
from tunewell.recipe import AUTO_MODEL, Recipe, yaml_value
from tunewell.recipe_file import load_yaml, mistakes
from tunewell.recipe_rules import secret_told
from tunewell.sequence.memory import CHOICES
from tunewell.sequence.methods import Plan, check_names, plan_of
from tunewell.strategies import STRATEGIES

TASK_KEYS = ("name", "train", "validation", "test", "text", "text_pair", "label", "head", "run")
# key -> (default, what it must be, test)
OWN_KEYS: dict[str, tuple[Any, str, Any]] = {
    "memory": (0.01, "a share of each task's rows below 1, or a whole number of rows in all; 0 stores none",
               lambda v: _number(v) and (0 <= v < 1 or v == int(v) >= 1)),
    "memory_choice": ("balanced", "one of " + ", ".join(CHOICES), lambda v: v in CHOICES),
    "head_first": (None, "true or false", lambda v: isinstance(v, bool)),
    "replay_weight": (1.0, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "der_weight": (0.5, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "lwf_weight": (1.0, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "lwf_temperature": (2.0, "a number above 0", lambda v: _number(v) and v > 0),
    "features_weight": (1.0, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "general_weight": (1.0, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "online_ewc_weight": (1000.0, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "online_ewc_decay": (0.95, "a number from 0 to 1", lambda v: _number(v) and 0 <= v <= 1),
    "o_lora_weight": (0.5, "a number, 0 or more", lambda v: _number(v) and v >= 0),
    "joint_temperature": (None, "a number above 0", lambda v: _number(v) and v > 0),
    "unseen": ("linear-probe", "linear-probe or none", lambda v: v in ("linear-probe", "none")),
}  # fmt: skip
# keys of a recipe that a sequence gives task by task, or that have no meaning for it
NOT_FOR_ALL = ("train", "validation", "test", "text", "text_pair", "label", "group", "strategy", "task", "framework",
               "multi_label", "monitor", "label_separator", "keep_worst", "output_dir", "strict",
               *(k for k in Recipe.model_fields if k.startswith("augment")))  # fmt: skip
# what may differ when a half-done sequence goes on: it decides nothing
FREE = ("output_dir", "overwrite_output_dir", "report_to", "lang", "save_total_limit", "threads")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


@dataclass(frozen=True)
class Task:
    """One task of a sequence. `head` names the earlier task whose head it goes on with, else its own name."""

    name: str
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    head: str = ""
    run: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys that are set, as in the file."""
        values = {k: getattr(self, k) for k in TASK_KEYS}
        return {k: v for k, v in values.items() if v is not None and not (k == "head" and v == self.name)}


@dataclass(frozen=True)
class Spec:
    """A validated sequence.

    Attributes:
        own: the keys of OWN_KEYS; recipe: keys of a recipe that hold for every task.
    """

    strategy: tuple[str, ...]
    output_dir: str
    tasks: tuple[Task, ...]
    own: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        plan = plan_of(self.strategy, self.own)
        return replace(plan, average=True) if self.recipe.get("keep") else plan

    def recipe_of(self, task: Task) -> Recipe:
        """The recipe of one task, as `tunewell run` would take it."""
        general = [n for n in self.plan.general if n in STRATEGIES]
        values = {k: getattr(task, k) for k in ("train", "validation", "test", "text", "text_pair", "label")}
        keys = {**self.recipe, **{k: v for k, v in values.items() if v is not None}}
        keys = {"metric": "accuracy", "task": "text-classification", **keys, "strategy": general or ["plain"]}
        # the folder is that of the whole: tasks lie below it, and what a worker has tuned there is not to be removed
        return Recipe(**{k: v for k, v in keys.items() if k not in ("keep", "output_dir", "overwrite_output_dir")})

    def settings(self) -> dict[str, Any]:
        """All that decides a result, defaults applied; tasks apart."""
        defaults = {k: f.default for k, f in Recipe.model_fields.items() if k not in NOT_FOR_ALL}
        keys = {**defaults, **self.recipe}
        return {"strategy": list(self.strategy), **self.own, **{k: v for k, v in keys.items() if k not in FREE}}

    def to_yaml(self) -> str:
        """The file, ready to run again."""
        lines = [f"strategy: {yaml_value(list(self.strategy))}", f"output_dir: {yaml_value(self.output_dir)}"]
        lines += [f"{k}: {yaml_value(v)}" for k, v in {**self.own, **self.recipe}.items() if v is not None]
        lines.append("tasks:")
        for task in self.tasks:
            lines.append(
                "  - "
                + yaml.safe_dump(
                    task.to_dict(), default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
                ).strip()
            )
        return "\n".join(lines) + "\n"


def load_spec(source: str | Path | Mapping[str, Any], **overrides: Any) -> Spec:
    """Read and validate a sequence.

    Args:
        source: a YAML file, or the same keys as a mapping.
        overrides: keys that take precedence; None means not given.

    Raises:
        RecipeError: with every mistake that the file has.
    """
    where = "sequence" if isinstance(source, Mapping) else str(source)
    values = dict(source) if isinstance(source, Mapping) else load_yaml(Path(source), what="a sequence in YAML")
    values |= {k: v for k, v in overrides.items() if v is not None}
    problems: list[str] = []
    known = ["strategy", "output_dir", "tasks", *OWN_KEYS, *(k for k in Recipe.model_fields if k not in NOT_FOR_ALL)]
    recipe: dict[str, Any] = {}
    own = {k: default for k, (default, _, _) in OWN_KEYS.items()}
    for key, value in values.items():
        if key in ("strategy", "output_dir", "tasks"):
            continue
        if key in OWN_KEYS:
            own[key] = value
            _, expected, fits = OWN_KEYS[key]
            if value is not None and not fits(value):
                problems.append(f"`{key}: {value}`: expected {expected}")
        elif key in NOT_FOR_ALL and key in Recipe.model_fields:
            place = "belongs to each of the `tasks`" if key in TASK_KEYS else "is not for a sequence"
            problems.append(f"`{key}` {place}")
        elif key not in known:
            hint = nearest(str(key), known)
            problems.append(f"unknown key `{key}`" + (f"; {hint}" if hint else ""))
        else:
            recipe[key] = value
    problems += mistakes(recipe)
    if recipe.get("model") == AUTO_MODEL:
        problems.append("`model: auto` is not for a sequence: name the model that `tunewell rank` puts first")
    names = _names(values.get("strategy", "auto"))
    memory = own["memory"] if _number(own["memory"]) else 1
    problems += check_names(names, memory)
    if recipe.get("keep") is not None and names in (["joint"], ["separate"]):
        problems.append(f"`keep` is not for `{names[0]}`")
    if own["joint_temperature"] is not None and names != ["joint"]:
        problems.append("`joint_temperature` is for `strategy: joint`: the others learn one task after the other")
    tasks = _tasks(values.get("tasks"), problems)
    if names in (["joint"], ["separate"]) and any(t.head != t.name for t in tasks):
        problems.append(f"`head` is not for `{names[0]}`: each task has its own")
    output = values.get("output_dir")
    if output is not None and (not isinstance(output, str) or not output.strip()):
        problems.append(f"`output_dir: {output}`: expected the name of a folder")
        output = None
    if output is None:
        output = str(Path("runs") / ("sequence" if isinstance(source, Mapping) else Path(source).stem))
    if problems:
        raise mistake(problems, where)
    valid = Recipe(**recipe)  # what was typed on a command line is text until here
    recipe = {k: getattr(valid, k) for k in recipe}
    return Spec(tuple(names), output, tuple(tasks), own, recipe)


def mistake(problems: list[str], where: str) -> RecipeError:
    """One error for one or several problems."""
    what = (
        problems[0] if len(problems) == 1 else f"{len(problems)} mistakes:\n" + "\n".join(f"  - {p}" for p in problems)
    )
    return RecipeError(what, where=where, remedy="`tunewell sequence --help` lists the keys")


def _names(value: Any) -> list[str]:
    if value is None:
        return ["auto"]
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()] or [value]
    return [str(v) for v in value] if isinstance(value, (list, tuple)) and value else [str(value)]


def _tasks(value: Any, problems: list[str]) -> list[Task]:
    if not isinstance(value, (list, tuple)) or not value:
        found = "is missing" if value is None else "is empty" if value in ([], ()) else f"is a {type(value).__name__}"
        problems.append(f"`tasks` {found}: expected a list of one or more tasks, each with `name` and `train`")
        return []
    tasks: list[Task] = []
    names: list[str] = []  # of all tasks, also of those with mistakes
    for i, entry in enumerate(value, start=1):
        if not isinstance(entry, Mapping):
            problems.append(f"task {i}: expected keys such as `name` and `train`, found `{entry}`")
            continue
        before = len(problems)
        title = f"task {i}" + (f" ({entry['name']})" if entry.get("name") else "")
        for key, v in entry.items():
            if key not in TASK_KEYS:
                hint = nearest(str(key), TASK_KEYS)
                problems.append(f"{title}: unknown key `{key}`" + (f"; {hint}" if hint else ""))
            elif v is not None and not isinstance(v, (str, int)):
                problems.append(f"{title}: `{key}: {v}`: expected text")
            problems += (f"{title}: {told}" for told in secret_told(str(key), v))
        name = str(entry.get("name") or "")
        if not name:
            problems.append(f"{title}: `name` is missing")
        elif not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
            problems.append(f"{title}: `name: {name}`: expected letters, digits, `_` and `-`")
        if name and name in names:
            problems.append(f"two tasks are called `{name}`")
        names.append(name)
        if entry.get("run") is not None and i > 1:
            problems.append(f"{title}: only the first task can be a finished `run`")
        elif entry.get("run") is not None and entry.get("train") is not None:
            problems.append(f"{title}: name `run` or `train`, not both")
        if entry.get("run") is None and entry.get("train") is None:
            problems.append(f"{title}: `train` is missing")
        head = str(entry.get("head") or name)
        if head != name and head not in names[:-1]:
            earlier = ", ".join(names[:-1]) or "there is none"
            problems.append(f"{title}: `head: {head}`: expected an earlier task ({earlier})")
        if len(problems) == before:
            texts = {k: str(v) for k, v in entry.items() if v is not None}
            own = next((t.head for t in tasks if t.name == head), head)  # of a task that goes on with another's
            tasks.append(Task(**{**texts, "name": name, "head": own}))
    return tasks
