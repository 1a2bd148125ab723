"""How long tuning will take, foretold from its first steps: all that a strategy adds is in them.

The steps ahead take as long a token as those that were timed, the first left out, since it warms up. Validation reads
its rows at a half of what training takes a token: a pass forward alone is a third of a step's work, in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from tunewell.train.progress import Counts

WARM = 2  # steps that are not timed
STEPS, SECONDS = 8, 3.0  # timed at the least; a tenth of tuning is enough in any case
FORWARD = 0.5
WORTH = 10.0  # seconds below which nobody needs to be told


class Forecast(TrainerCallback):
    """Tells once what tuning will take, where that is long enough to wait for.

    `seconds` is afterwards what was foretold, told or not; None where tuning was too short to tell.

    Args:
        counts: of the tuning, see `Counts`; it must stand before this one among the callbacks.
        tokens: of all steps of tuning together, padding left out; 0 where it is not known, and steps count instead.
        validation: tokens that validation reads each time. every: steps from one validation to the next.
    """

    def __init__(
        self, counts: Counts, *, tokens: float, validation: float, every: int, echo: Callable[[str], None]
    ) -> None:
        self.counts, self.tokens, self.validation = counts, tokens, validation
        self.every, self.echo = every, echo
        self.seconds: float | None = None
        self._from: tuple[int, int, float] | None = None  # step, tokens and computing seconds after the warm steps
        self._steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps += 1
        if self.seconds is not None or self._steps < WARM or state.global_step >= state.max_steps:
            return
        if self._from is None:
            self._from = state.global_step, self.counts.tokens, self.counts.computing
            return
        step, tokens, computing = self._from
        timed, spent = state.global_step - step, self.counts.computing - computing
        if (timed < STEPS or spent < SECONDS) and timed < state.max_steps / 10:
            return
        a_token = spent / max(1, self.counts.tokens - tokens)
        if self.tokens:
            ahead = max(0.0, self.tokens - self.counts.tokens) * a_token
        else:
            ahead = (state.max_steps - state.global_step) * spent / timed
        validations = state.max_steps // self.every - state.global_step // self.every
        ahead += validations * self.validation * FORWARD * a_token
        self.seconds = self.counts.so_far + ahead
        if self.seconds >= WORTH and state.is_world_process_zero:
            from tunewell.report.verdict import duration

            self.echo(f"tune: about {duration(self.seconds)} for {state.max_steps:,} steps")
