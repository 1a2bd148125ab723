"""Names of the strategies that a sequence knows, which of them go together, and what `auto` stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunewell.errors import nearest
from tunewell.strategies import STRATEGIES

if TYPE_CHECKING:
    from tunewell.sequence.past import Past

# name -> one line; what a single run knows (plain, distill, average, ...) comes on top
OWN = {
    "auto": "the combination that was best by measurement: with stored rows, or without under `memory: 0`",
    "replay": "stored rows of earlier tasks at every step (Chaudhry et al., 2019)",
    "der": "stored rows with their labels and logits, DER++ (Buzzega et al., 2020)",
    "lwf": "earlier heads keep their answers on the new task's inputs (Li & Hoiem, 2016)",
    "features": "the body keeps its embeddings of the new task's inputs",
    "general": "earlier heads and the body keep their answers on general text (Lee et al., 2019)",
    "agem": "steps are projected so that stored rows do not get worse (Chaudhry et al., 2019)",
    "online_ewc": "weights that earlier tasks rest on are held (Schwarz et al., 2018)",
    "o_lora": "each task in low-rank directions orthogonal to the earlier ones (Wang et al., 2023)",
    "joint": "all tasks at once: the ceiling (Caruana, 1997)",
    "separate": "a model for each task: the reference",
}
ALONE = ("auto", "plain", "joint", "separate")
ENOUGH = 200  # stored rows from which `auto` replays at full weight
STORING = ("replay", "der", "agem")  # cannot work without stored rows


def known() -> list[str]:
    return [
        *OWN,
        *(name for name in STRATEGIES if name not in (*OWN, "prompt", "fewshot", "rehearse", "sdft", "mixup")),
    ]  # tasks share an encoder


def check_names(names: list[str], memory: float) -> list[str]:
    """What is wrong with the strategies of a sequence, in sentences; empty when they make sense."""
    from tunewell.strategies import check_combination

    problems = []
    for name in names:
        if name not in known():
            hint = nearest(name, known())
            problems.append(
                f"unknown strategy `{name}`; a sequence knows {', '.join(known())}" + (f"; {hint}" if hint else "")
            )
        if name in STORING and not memory:
            problems.append(f"`{name}` needs stored rows, but `memory: 0` stores none; use lwf, features or distill")
    if len(set(names)) != len(names):
        problems.append("a strategy is named twice")
    for name in names:
        if name in ALONE and len(names) > 1:
            problems.append(
                f"`{name}` stands alone: it cannot be combined with {', '.join(n for n in names if n != name)}"
            )
            break
    if "replay" in names and "der" in names:
        problems.append("`der` is a replay already; name one of replay, der")
    general = ["lora" if n == "o_lora" else n for n in names if n in (*STRATEGIES, "o_lora") and n not in ALONE]
    if not problems and general:
        problems += [p.replace("`lora`", "`o_lora`") if "o_lora" in names else p for p in check_combination(general)]
    if "o_lora" in names and "online_ewc" in names:
        problems.append("`o_lora` freezes the weights that `online_ewc` holds: take one of them")
    return problems


@dataclass(frozen=True)
class Plan:
    """What tuning one task takes.

    Attributes:
        general: strategies of a single run (distill, ...), made from the recipe by the tuning stage.
        head_first: the new head is fitted on the frozen body before anything is tuned (LP-FT).
        average: weights between the body before and after are considered.
        replay, dark, rows: weight of the stored rows' cross-entropy and of their logits; rows a step.
        lwf, features: weights on the new task's inputs; text, text_lwf: of embeddings and of heads on general text.
        enough: stored rows from which replay has its full weight; with fewer, which would be learned by heart, it
            weighs in proportion. 0 for its full weight in any case.
        online_ewc, o_lora: weights of their terms.
        heads_follow: earlier heads are trained along. stores: rows are stored, as far as `memory` allows.
    """

    general: tuple[str, ...] = ()
    head_first: bool = False
    average: bool = False
    replay: float = 0.0
    dark: float = 0.0
    rows: int | None = None
    lwf: float = 0.0
    features: float = 0.0
    text: float = 0.0
    text_lwf: float = 0.0
    agem: bool = False
    online_ewc: float | None = None
    o_lora: float | None = None
    enough: int = 0

    @property
    def heads_follow(self) -> bool:
        return bool(self.replay or self.dark or self.lwf or self.text_lwf or self.agem)

    @property
    def stores(self) -> bool:
        return bool(self.replay or self.dark or self.agem or self.average)


def plan_of(names: tuple[str, ...], options: dict[str, Any]) -> Plan:
    """The plan behind names of strategies and the sequence's own keys."""
    if names == ("auto",):
        plan = auto_plan(bool(options["memory"]))
    else:
        plan = Plan(
            general=tuple(n for n in names if n in STRATEGIES and n not in ("plain", "average")),
            average="average" in names,
            head_first=names == ("joint",),
            replay=options["replay_weight"] if {"replay", "der"} & set(names) else 0.0,
            dark=options["der_weight"] if "der" in names else 0.0,
            lwf=options["lwf_weight"] if "lwf" in names else 0.0,
            features=options["features_weight"] if "features" in names else 0.0,
            text=options["general_weight"] if "general" in names else 0.0,
            text_lwf=options["lwf_weight"] if "general" in names else 0.0,
            agem="agem" in names,
            online_ewc=options["online_ewc_weight"] if "online_ewc" in names else None,
            o_lora=options["o_lora_weight"] if "o_lora" in names else None,
        )
    return plan if options["head_first"] is None else replace(plan, head_first=options["head_first"])


def auto_plan(memory: bool) -> Plan:
    """What `auto` does; the measurements behind it are in the docs (How-to, Many tasks in a row)."""
    return Plan(
        head_first=True,
        lwf=1.0,
        features=1.0,
        text=1.0,
        text_lwf=1.0,
        replay=1.0 if memory else 0.0,
        dark=0.5 if memory else 0.0,
        rows=8,
        enough=ENOUGH,
    )


def hooks(plan: Plan, past: Past, recipe: dict[str, Any], *, first: bool) -> list[Any]:
    """The strategies of a plan beside those of a single run; those that read the task's own batch come first.

    Args:
        recipe: the keys of the task's recipe.
        first: no task came before, so that only the base model's embeddings can be held.
    """
    from tunewell.sequence.agem import AveragedGEM
    from tunewell.sequence.consolidation import OnlineEWC
    from tunewell.sequence.general import General
    from tunewell.sequence.lwf import Features, LearningWithoutForgetting, Teacher
    from tunewell.sequence.o_lora import OrthogonalLowRank
    from tunewell.sequence.replay import DarkReplay, Replay

    source, samples = recipe["general_text"], recipe["general_samples"]
    text = General(past, source=source, samples=samples, weight=plan.text, lwf=plan.text_lwf)
    leaving: list[Any] = []
    if plan.online_ewc is not None:
        leaving.append(OnlineEWC(past, weight=plan.online_ewc))
    if plan.o_lora is not None:
        leaving.append(OrthogonalLowRank(past, recipe, weight=plan.o_lora))
    if first:
        return [text, *leaving] if plan.text else leaving
    made: list[Any] = []
    teacher = Teacher(past)
    if plan.lwf:
        temperature = past.options["lwf_temperature"]
        made.append(LearningWithoutForgetting(past, teacher, weight=plan.lwf, temperature=temperature))
    if plan.features:
        made.append(Features(past, teacher, weight=plan.features))
    if plan.text or plan.text_lwf:
        made.append(text)
    if plan.replay or plan.dark:
        kind = DarkReplay if plan.dark else Replay
        stored = sum(len(s) for s in past.stored)
        share = min(1.0, stored / plan.enough) if plan.enough else 1.0
        made.append(kind(past, weight=share * plan.replay, dark=share * plan.dark, rows=plan.rows))
    if plan.agem:
        made.append(AveragedGEM(past))
    return made + leaving
