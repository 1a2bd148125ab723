"""Self-distillation: the base model says each training answer in its own words, and is tuned on what it said.

The gap between the task's answers and what the model itself would write is what tuning forgets by. Before tuning, the
base model is given an instruction with its reference answer and writes the answer anew; a rewritten answer is taken
only when it passes a check, else the original stays: y' = ỹ where the check holds, else y, and then ordinary supervised
tuning on y' (Yang et al., 2024, Self-Distillation Bridges Distribution Gap in Language Model Fine-Tuning; their
template is the default one). For answers that end in a final one the check is the paper's: the final answers must be
equal. For all others it is ours, see `tasks.generation.agreement`.

The rows are rewritten by `stages.rewrite` before the training loop begins, so that there is nothing to do at a step.
Nothing heavy is imported here: the recipe checks the template with it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError, nearest

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning

TEMPLATE = (
    "Below is an instruction that describes a task along with a reference answer. Using the reference answer as a "
    "guide, write your own response.\n\n### Instruction:\n{instruction}\n\n### Reference Answer:\n{answer}\n\n"
    "### Response:\n"
)
INSTRUCTION, ANSWERS = "instruction", ("answer", "response")
PLACE = re.compile(r"\{([A-Za-z_]+)\}")


class SelfDistillation:
    name = "sdft"
    title = "Self-distillation: the base model says the training answers in its own words first"
    paper = "Yang et al., 2024, Self-Distillation Bridges Distribution Gap in Language Model Fine-Tuning"

    def __init__(self, options: dict[str, Any]) -> None:
        pass

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.train.monitor import is_decoder

        if not is_decoder(tuning.model):
            raise RecipeError(
                "`strategy: sdft` lets the base model rewrite answers, and an encoder writes none",
                where="strategy",
                expected="a decoder that is tuned to write, or another strategy such as distill",
            )


def check_template(template: str | None) -> list[str]:
    """What is wrong with a template, in sentences; empty when it can be filled.

    >>> check_template(TEMPLATE), check_template(None)
    ([], [])
    >>> check_template("Say {instruction} otherwise.")
    ['sdft_template has no {answer}: the base model must be told what to rewrite']
    """
    if template is None:
        return []
    found = PLACE.findall(template)
    problems = []
    for name in dict.fromkeys(found):
        if name not in (INSTRUCTION, *ANSWERS):
            hint = nearest(name, (INSTRUCTION, *ANSWERS))
            problems.append(
                f"sdft_template has {{{name}}}, which nothing is put into; known: {{instruction}}, {{answer}} (or "
                "{response})" + (f"; {hint}" if hint else "")
            )
    if not problems and INSTRUCTION not in found:
        problems.append("sdft_template has no {instruction}: the base model must be told what the answer is to")
    if not problems and not set(ANSWERS) & set(found):
        problems.append("sdft_template has no {answer}: the base model must be told what to rewrite")
    return problems


def filled(template: str, instruction: str, answer: str) -> str:
    """A template with its places filled; what is put in is never taken for a place.

    >>> filled("{instruction} -> {answer}", "say {answer}", "one")
    'say {answer} -> one'
    """
    return PLACE.sub(lambda place: instruction if place[1] == INSTRUCTION else answer, template)
