"""Strategies: how weights change and what protects them. One file each, one line in this table.

This module stays light: the recipe reads the table before anything heavy is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tunewell.errors import nearest

STRATEGIES: dict[str, str] = {
    "plain": "tunewell.strategies.plain:Plain",
    "distill": "tunewell.strategies.distillation:Distillation",
    "average": "tunewell.strategies.averaging:Averaging",
    "lines": "tunewell.strategies.lines:LayerScaling",
    "freeze": "tunewell.strategies.freezing:Freezing",
    "lpft": "tunewell.strategies.lpft:LinearProbeFirst",
    "llrd": "tunewell.strategies.llrd:LayerwiseRates",
    "l2sp": "tunewell.strategies.l2sp:L2SP",
    "ewc": "tunewell.strategies.ewc:ElasticWeights",
    "mas": "tunewell.strategies.mas:MemoryAwareSynapses",
    "gpm": "tunewell.strategies.gpm:GradientProjection",
    "anchor": "tunewell.strategies.anchor:Anchor",
    "rehearse": "tunewell.strategies.rehearsal:Rehearsal",
    "sdft": "tunewell.strategies.sdft:SelfDistillation",
    "recadam": "tunewell.strategies.recadam:RecallAndLearn",
    "prompt": "tunewell.strategies.prompt:Prompting",
    "fewshot": "tunewell.strategies.fewshot:FewShot",
    "lora": "tunewell.strategies.lora:LowRank",
    "ema": "tunewell.strategies.ema:MovingAverage",
    "swa": "tunewell.strategies.swa:StochasticWeightAveraging",
    "sam": "tunewell.strategies.sam:SharpnessAware",
    "mixup": "tunewell.strategies.mixup:Mixup",
}
AUTO = "auto"  # no strategy of its own: a search among those of the table, see stages/search.py
AFTERWARDS = ("average", "lines")  # work on tuned weights, so that they can be added without tuning again
WITH_PROMPT = ("prompt", "average", "freeze", "llrd", "l2sp", "recadam", "ema", "swa", "sam")
FEWSHOT, SDFT = "fewshot", "sdft"
FOR_LABELS = ("lpft", "fewshot", "mas", "mixup")  # need classes or sentence embeddings, which no writer has
PULLS = ("l2sp", "ewc", "mas", "recadam")  # hold weights to those of the base model
# mean something only where the encoder is tuned as a whole
MOVES = (*PULLS, "distill", "rehearse", "sdft", "anchor", "gpm", "llrd", *AFTERWARDS)


def check_combination(names: list[str], freeze: str = "") -> list[str]:
    """What is wrong with a list of strategies, in sentences; empty when it makes sense.

    Args:
        freeze: what the strategy `freeze` holds, when it is among them.
    """
    problems = []
    for name in names:
        if name not in (*STRATEGIES, AUTO):
            hint = nearest(name, (*STRATEGIES, AUTO))
            problems.append(
                f"unknown strategy `{name}`; known: {', '.join((*STRATEGIES, AUTO))}" + (f"; {hint}" if hint else "")
            )
    if AUTO in names and len(names) > 1:
        problems.append("`auto` chooses strategies by itself and cannot be combined with others")
    if not names:
        problems.append("strategy must name at least one of " + ", ".join(STRATEGIES))
    if len(set(names)) != len(names):
        problems.append("a strategy is named twice")
    if "plain" in names and len(names) > 1:
        problems.append("`plain` protects nothing and cannot be combined with other strategies")
    pulls = [name for name in names if name in PULLS]
    if len(pulls) > 1:
        problems.append(f"{_and(pulls)} all pull weights back to the base model: take one of them")
    if "prompt" in names and (idle := [name for name in names if name not in WITH_PROMPT and name in STRATEGIES]):
        problems.append(f"`prompt` goes with {', '.join(WITH_PROMPT[1:])}, not with {_and(idle)}")
    if SDFT in names and (idle := [name for name in names if name in FOR_LABELS]):
        verb = "needs" if len(idle) == 1 else "need"
        problems.append(f"`sdft` rewrites answers that are texts, and {_and(idle)} {verb} classes: no task has both")
    if FEWSHOT in names and "lpft" in names:
        problems.append("`fewshot` fits the head before tuning and after it: leave `lpft` out")
    if "ema" in names and "swa" in names:
        problems.append("`ema` and `swa` are both averages along tuning: take one of them")
    if "lora" in names:
        if held := [name for name in names if name in (*PULLS, "llrd", "gpm")]:
            verb = "works" if len(held) == 1 else "work"
            problems.append(f"`lora` freezes the base model's weights, which {_and(held)} {verb} on")
        if "freeze" in names:
            problems.append("`lora` freezes the base model's weights by itself: leave `freeze` out")
    if "freeze" in names and freeze == "head_only" and (idle := [name for name in names if name in MOVES]):
        verb = "has" if len(idle) == 1 else "have"
        problems.append(f"`freeze: head_only` leaves the encoder as it is, so {_and(idle)} {verb} nothing to keep")
    if "freeze" in names and freeze == "head_only" and FEWSHOT in names:
        problems.append("`freeze: head_only` leaves the encoder as it is, and `fewshot` is to tune it by contrast")
    return problems


def _and(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]


def strategy_class(name: str) -> Any:
    """The class behind a name of the table."""
    module, attribute = STRATEGIES[name].split(":")
    return getattr(import_module(module), attribute)
