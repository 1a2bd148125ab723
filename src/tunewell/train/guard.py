"""The guard: reads the loss while a model is tuned, and takes a tuning back that a too high rate has thrown out.

The level of the loss is its exponential moving average over steps, the task's own loss a row (or a token), without
the terms that strategies add; with fewer rows a step it spans more steps, so that a few hard rows in a row are no
event. It is held against the level of the first steps and the best one so far:

    blown up     the level is EXPLODED times that of the first steps
    fell back    the level is that of the first steps again, after it had been clearly lower
    stuck        the level has never left that of the first steps, though the weights have moved far
    not finite   loss or gradient were not finite for NONFINITE steps in a row
    gradient     the norm of the gradient, before it is clipped, has been above its band for HELD steps in a row (see
                 `beyond`)

Then weights and strategies go back to the last good state, which is the latest at a new best level, AdamW forgets its
moments, and the rate is halved; quartered when it happens again soon, and so on. `guard: watch` does no more than that,
and says at the end whether the rate looks too high or too low (see `signs`); `guard: act` also changes it on the way:
halved where the loss does not fall while the rate is at its height, doubled where it creeps.

What the guard does follows from losses and gradients alone, so that the same seed gives the same model; its state is
part of every checkpoint, and a resumed run goes on as if it had not been stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from tunewell import processes
from tunewell.errors import TrainingError
from tunewell.results import GuardEvent, GuardRecord
from tunewell.train.hooks import hooks
from tunewell.train.sharding import local
from tunewell.train.signs import signs, slope

if TYPE_CHECKING:
    import torch

    from tunewell.train.trainer import TunewellTrainer

FADE = 0.9  # of the moving average: about ten steps
ROWS = 16  # rows of a step that the figures in steps are made for; with fewer they are stretched
FIRST = 5  # steps whose mean is the level at the start
GRACE = 10  # steps after a start or a return in which nothing is judged
EXPLODED, RETURNED, LEARNED = 1.5, 0.98, 0.85  # of the first level
STUCK = 40  # steps, beyond the warm-up, after which a loss that has not moved is judged
FAR = 0.3  # movement of the weights, relative to their size, from which a stuck loss is the rate's fault
NONFINITE = 3
HELD = 8  # steps in a row of which each gradient is above the band; one that spikes is clipped, and no event
BAND, BAND_LEAST = 40, 20  # steps before them that the band is made of: the latest, and how few will do
WIDE, SPREADS = math.log(10), 4.0  # half the band, in log norms: as wide as either says
AGAIN = 40  # steps within which a second return cuts the rate twice as much
MOST, MOST_STUCK = 8, 3  # returns after which tuning is given up; after which a loss that does not move is let be
BETTER = 0.97  # of the last good state's level, at which a new one is kept
APART = 10  # steps between two good states
MOST_RAISED, MOST_LOWERED = 2, 3  # changes of `act`


class Guard(TrainerCallback):
    """See the head of this file.

    Args:
        mode: watch or act. warmup, steps: planned. rows: of a step.

    Attributes:
        losses: mean loss of each step so far, nan for a dropped one.
        events: what was done, in order.
        factor: of the rate, for all that was done.
    """

    name, title, paper = "guard", "Guard of the learning rate", ""

    def __init__(
        self,
        mode: str,
        *,
        steps: int,
        warmup: int,
        rows: int = ROWS,
        echo: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.mode, self.steps, self.warmup, self._echo = mode, steps, warmup, echo
        self._stretch = max(1, round(ROWS / max(1, rows)))
        self._fade, self._grace = FADE ** (1 / self._stretch), GRACE * self._stretch
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.events: list[GuardEvent] = []
        self.factor = 1.0
        self.trainer: TunewellTrainer | None = None
        self._sum, self._count = 0.0, 0
        self._level, self._seen = 0.0, 0  # of the moving average, with the number of losses in it
        self._first = self._best = math.inf
        self._since = 0  # step at which judging began anew
        self._bad = 0
        self._norms: list[float] = []  # logs of the gradient's norm since the start or the last return
        self._good: dict[str, torch.Tensor] = {}
        self._good_level, self._good_step = math.inf, 0
        self._found: dict[str, torch.Tensor] = {}

    # ------------------------------------------------------------ what the trainer tells

    def add(self, loss: float, count: int) -> None:
        """The summed loss of `count` rows or tokens of a batch of the step at work."""
        self._sum += loss
        self._count += count

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._found:
            self._restore(self._found)
            self._found = {}
        elif not self._good:
            self._keep(state.global_step, math.inf)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        summed, count = processes.total([self._sum, self._count])
        loss = summed / count if count else math.nan
        self._sum, self._count = 0.0, 0
        if self.trainer.step_dropped or not math.isfinite(loss):
            loss, self._bad = math.nan, self._bad + 1
        else:
            self._bad = 0
            self._seen += 1
            self._level = self._fade * self._level + (1 - self._fade) * loss
            self._norms.append(math.log(max(self.trainer.grad_norm, 1e-12)))
        self.losses.append(loss)
        self.rates.append(float(self.trainer._get_learning_rate()))
        step = state.global_step
        if not math.isfinite(self._first):
            self._begin()
        if what := self._judge(step):
            self._return(step, what)
            return
        level = self.level
        if self._seen >= self._grace and level is not None:
            self._best = min(self._best, level)
            if level <= BETTER * self._good_level and step - self._good_step >= APART and level <= self._best:
                self._keep(step, level)
        if self.mode == "act" and step - self._since >= self._window:
            self._act(step)

    def _begin(self) -> None:
        """The level at the start, once there are losses enough."""
        early = [x for x in self.losses if math.isfinite(x)]
        if len(early) == FIRST * self._stretch:
            self._first = sum(early) / len(early)
            if not self._good_step:  # the start is as good as its first losses
                self._good_level = min(self._good_level, self._first)

    @property
    def level(self) -> float | None:
        """The moving average of the loss, without its bias to 0; None before the first loss."""
        return self._level / (1 - self._fade**self._seen) if self._seen else None

    # ------------------------------------------------------------ judging

    def _judge(self, step: int) -> str:
        """What is wrong, empty when nothing is."""
        if self._bad >= NONFINITE:
            return "not finite"
        if beyond(self._norms, self._stretch):
            return "gradient"
        level = self.level
        if level is None or not math.isfinite(self._first) or min(step - self._since, self._seen) < self._grace:
            return ""
        if level > EXPLODED * self._first and level > self._first + 0.1:
            return "blown up"
        if self._best <= LEARNED * self._first and level >= RETURNED * self._first:
            return "fell back"
        long = step - max(self._since, self.warmup) >= STUCK * self._stretch
        long = long and sum(e.what == "stuck" for e in self.events) < MOST_STUCK
        if long and self._best > LEARNED * self._first and level >= RETURNED * self._first and self._moved() > FAR:
            return "stuck"
        return ""

    def _moved(self) -> float:
        """How far the trained weights are from the last good state, relative to their size."""
        away = size = 0.0
        for name, p in self._trained():
            now, before = local(p.detach()), local(self._good[name]).to(p.device)
            away += float((now - before).square().sum())
            size += float(before.square().sum())
        if self.trainer is not None and self.trainer.sharded is not None:
            away, size = processes.total([away, size])
        return math.sqrt(away / max(size, 1e-12))

    @property
    def _window(self) -> int:
        return max(20 * self._stretch, self.steps // 8)

    def _act(self, step: int) -> None:
        """Change the rate where the last two windows, at the height of the rate, say that it does not fit."""
        w = self._window
        if step <= self.warmup + 2 * w or step > 0.6 * self.steps or len(self.losses) < 2 * w:
            return
        before, now = (slope(self.losses[-2 * w : -w]), slope(self.losses[-w:]))
        if before is None or now is None:
            return
        raised = sum(e.what == "creeping" for e in self.events)
        lowered = sum(e.what == "oscillating" for e in self.events)
        level = self.level or 0.0
        if before.flat and now.flat and level > 0.5 * self._first and lowered < MOST_LOWERED:
            self._change(step, "oscillating", 0.5)
            return
        steady = before.falls and now.falls and now.rate > 0.8 * before.rate
        if steady and level > LEARNED * self._first and raised < MOST_RAISED:
            self._change(step, "creeping", 2.0)

    # ------------------------------------------------------------ acting

    def _change(self, step: int, what: str, factor: float, back_to: int | None = None) -> None:
        assert self.trainer is not None
        before = float(self.trainer.args.learning_rate) * self.factor
        self.factor *= factor
        scheduler: Any = self.trainer.lr_scheduler
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]
        for group in self.trainer.optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] *= factor
        event = GuardEvent(step=step, what=what, rate_before=before, rate_after=before * factor, back_to=back_to)
        self.events.append(event)
        self._since = step
        done = f"back to step {back_to}, " if back_to is not None else ""
        self._echo(f"guard: {what} at step {step}: {done}rate {before:.2g} → {before * factor:.2g}")

    def _return(self, step: int, what: str) -> None:
        """Back to the last good state at a lower rate."""
        import torch

        assert self.trainer is not None
        returns = [e for e in self.events if e.back_to is not None]
        if len(returns) >= MOST:
            raise TrainingError(
                f"the loss was thrown out {MOST + 1} times, last at step {step} ({what})",
                where=f"learning_rate: {self.trainer.args.learning_rate:g}",
                expected="a loss that falls",
                remedy="look at the labels with `tunewell check`, lower learning_rate, or set `guard: off`",
            )
        soon, later = 0, step
        for event in reversed(returns):  # how many came one soon after the other
            if later - event.step > AGAIN * self._stretch:
                break
            soon, later = soon + 1, event.step
        with torch.no_grad():
            for name, p in self._trained():
                p.copy_(self._good[name])
                p.grad = None
        for strategy in self.trainer.strategies:
            mark = f"strategy.{strategy.name}."
            own = {k.removeprefix(mark): v.clone() for k, v in self._good.items() if k.startswith(mark)}
            for load in hooks([strategy], "load_state"):
                if own:
                    load(own)
        self.trainer.optimizer.state.clear()  # type: ignore[union-attr]
        self._change(step, what, 0.5 ** (2 ** min(soon, 2)), self._good_step)
        self._bad, self._best = 0, self._good_level
        self._level, self._seen, self._norms = 0.0, 0, []

    def _keep(self, step: int, level: float) -> None:
        """The state now is the last good one."""
        assert self.trainer is not None
        self._good = {name: p.detach().clone() for name, p in self._trained()}
        for strategy in self.trainer.strategies:
            for state in hooks([strategy], "state"):
                self._good |= {f"strategy.{strategy.name}.{k}": v.detach().clone() for k, v in state().items()}
        self._good_level, self._good_step = level, step

    def _trained(self) -> list[tuple[str, Any]]:
        assert self.trainer is not None
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    # ------------------------------------------------------------ checkpoints

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        figures = [
            self._level, self._seen, self._first, self._best, self._since, self._bad, self._good_level,
            self._good_step, self.factor,
        ]  # fmt: skip
        events = [
            [e.step, KINDS.index(e.what), e.rate_before, e.rate_after, -1 if e.back_to is None else e.back_to]
            for e in self.events
        ]
        return {
            "guard.figures": torch.tensor(figures, dtype=torch.float64),
            "guard.losses": torch.tensor([self.losses, self.rates], dtype=torch.float64).reshape(2, -1),
            "guard.norms": torch.tensor(self._norms, dtype=torch.float64),
            "guard.events": torch.tensor(events, dtype=torch.float64).reshape(-1, 5),
            **self._good,
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self._found = state

    def shard(self, place: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
        self._found = {k: place(_weight(k), v) for k, v in self._found.items()}

    def _restore(self, state: dict[str, torch.Tensor]) -> None:
        figures = state["guard.figures"].tolist()
        self._level, seen, self._first, self._best, since, bad, self._good_level, step, self.factor = figures
        self._seen, self._since, self._bad, self._good_step = int(seen), int(since), int(bad), int(step)
        self.losses, self.rates = (row.tolist() for row in state["guard.losses"])
        self._norms = state["guard.norms"].tolist() if "guard.norms" in state else []
        self.events = [
            GuardEvent(
                step=int(at), what=KINDS[int(kind)], rate_before=before, rate_after=after,
                back_to=None if back < 0 else int(back),
            )
            for at, kind, before, after, back in state["guard.events"].tolist()
        ]  # fmt: skip
        self._good = {k: v for k, v in state.items() if not k.startswith("guard.")}

    def tell(self) -> None:
        """Say what the loss says of the rate, where nothing was done about it."""
        advice = {"too high": "fell only once the rate did; a lower", "too low": "was still falling steadily; a higher"}
        for sign in self.record().signs:
            if not self.events:
                self._echo(f"guard: the loss {advice[sign]} learning_rate may serve better")

    def record(self) -> GuardRecord:
        """What was read and done."""
        return GuardRecord(
            mode=self.mode,
            events=tuple(self.events),
            factor=self.factor,
            signs=signs(self.losses, self.rates, warmup=self.warmup, thrown=bool(self.events)),
        )


def _weight(key: str) -> str:
    """The name of the weight that a tensor of the last good state belongs to, a strategy's among them.

    >>> _weight("strategy.swa.mean.head.bias"), _weight("strategy.ema.head.bias"), _weight("head.bias")
    ('head.bias', 'head.bias', 'head.bias')
    """
    own = key.split(".", 2)[2] if key.startswith("strategy.") else key
    return own.removeprefix("mean.")


def beyond(norms: Sequence[float], stretch: int = 1) -> bool:
    """Whether the gradient has left its band: each of the last HELD norms is above it.

    The band ends WIDE above the median of the BAND norms before those, or of the first ones where that is higher, or
    SPREADS robust standard deviations (1.4826 times the median distance from the median) where they spread more. A
    gradient may grow tenfold in an ordinary tuning, but over many steps, so that its band goes along; and it may
    become as small as it likes.

    Args:
        norms: (steps,) logs of norms. stretch: by which spans are longer, with few rows a step.

    >>> calm = [0.0, 0.1] * 20
    >>> beyond([*calm, *[2.3] * 8]), beyond([*calm, *[2.5] * 8]), beyond([*calm, *[2.5] * 7]), beyond([2.5] * 48)
    (False, True, False, False)
    """
    held, least, width = HELD * stretch, BAND_LEAST * stretch, BAND * stretch
    if len(norms) < least + held:
        return False
    before, now = np.asarray(norms[-width - held : -held]), min(norms[-held:])
    middle = float(np.median(before))
    if now <= middle + WIDE:  # most steps
        return False
    spread = 1.4826 * float(np.median(np.abs(before - middle)))
    return now > max(middle, float(np.median(norms[:least]))) + max(WIDE, SPREADS * spread)


KINDS = ("not finite", "blown up", "fell back", "stuck", "oscillating", "creeping", "gradient")
