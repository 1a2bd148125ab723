"""A tuning that is asked to stop (SIGTERM, SIGINT) saves a checkpoint at its next step and leaves.

Schedulers give a few seconds between SIGTERM and SIGKILL. A validation that is due does not begin, one under way is
left at the model's next pass; the checkpoint says that it is owed, and who goes on from there begins with it (see
`TunewellTrainer.make_up`). What had the signal before tuning has it again after the checkpoint is saved: the command
line ends with 143 or 130, a notebook gets its KeyboardInterrupt. A second signal leaves at once, and so does a first
one when GRACE seconds later no checkpoint has been begun: what was saved before stays.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from transformers import TrainerCallback

from tunewell import processes
from tunewell.stopping import leave

GRACE = 8.0  # seconds for the step at work, or the pass of a validation
SIGNALS = ("SIGTERM", "SIGINT")


class ValidationLeft(BaseException):
    """Breaks off a validation; no mistake of anybody's, so that nothing on the way takes it for one."""


class StopInOrder(TrainerCallback):
    """See the head of this file; `listening` is the context in which signals are heard."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self.echo = echo
        self.asked = 0  # the signal's number
        self.shared = False  # all processes know of it
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals in the main thread, unless they are ignored or somebody outside Python has them."""
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                before = signal.getsignal(getattr(signal, name))
                if before is not None and before is not signal.SIG_IGN:
                    self._before[getattr(signal, name)] = before
                    signal.signal(getattr(signal, name), self._hear)
        try:
            yield
        finally:
            self._quiet()

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def _hear(self, number: int, frame: Any) -> None:
        before = self._before[number]
        final = before in (signal.SIG_DFL, leave)  # it would end the process in any case
        if self.asked:
            self._quiet()
            if final:
                _end(number)
            before(number, frame)
            return
        self.asked = number  # nothing is said here: a line may be half-written
        if final:
            self._timer = threading.Timer(GRACE, _end, (number,))
            self._timer.daemon = True
            self._timer.start()

    def ask(self, number: int = signal.SIGTERM) -> None:
        """As if the signal had come here: another process of the run has had it."""
        self.asked, self.shared = self.asked or number, True

    @property
    def agreed(self) -> bool:
        """A stop is asked for, and all processes know of it."""
        return bool(self.asked) and (self.shared or not processes.together())

    def saving(self) -> None:
        """A checkpoint is begun; it may take the time that it takes."""
        if self.agreed and self._timer is not None:
            self._timer.cancel()

    @contextlib.contextmanager
    def leaving(self, model: Any) -> Iterator[None]:
        """A validation, which a pass of the model breaks off once a stop is asked for; random states are then those
        from before it.

        Raises:
            ValidationLeft: it was.
        """

        def asked(*_: Any) -> None:
            if self.asked:
                raise ValidationLeft

        before = _random_states()
        inner = getattr(model, "base_model", model)  # some validations ask for embeddings only
        handles = [m.register_forward_pre_hook(asked) for m in {id(m): m for m in (model, inner)}.values()]
        try:
            yield
        except ValidationLeft:
            _set_random_states(before)
            raise
        finally:
            for handle in handles:
                handle.remove()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.asked:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.agreed:
            return
        number, self.asked = self.asked, 0
        before = self._before.get(number, signal.SIG_DFL)
        self.echo(f"tune: stopped at step {state.global_step}, which is saved; the same command goes on from there")
        self._quiet()
        if before is signal.SIG_DFL:
            leave(number, None)
        before(number, None)


def _random_states() -> tuple[Any, ...]:
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_states(states: tuple[Any, ...]) -> None:
    import torch

    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    if states[3] is not None:
        torch.cuda.set_rng_state_all(states[3])


def _end(number: int) -> None:
    """Leave without any clean-up: what is whole is sealed."""
    sys.stderr.flush()
    os._exit(128 + number)
