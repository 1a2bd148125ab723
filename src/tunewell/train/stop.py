"""A tuning that is asked to stop (SIGTERM, SIGINT) saves a checkpoint at its next step and leaves.

Schedulers give a few seconds between SIGTERM and SIGKILL. What had the signal before tuning has it again after the
checkpoint is saved: the command line ends with 143 or 130, a notebook gets its KeyboardInterrupt. A second
signal leaves at once, and so does a first one whose step is not done after GRACE seconds: what was saved before stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback

from tunewell import processes
from tunewell.stopping import leave

GRACE = 8.0  # seconds for the step at work
SIGNALS = ("SIGTERM", "SIGINT")


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
        if self._timer is not None:
            self._timer.cancel()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.asked:
            if self._timer is not None:
                self._timer.cancel()
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.asked or (processes.together() and not self.shared):
            return
        number, self.asked = self.asked, 0
        before = self._before.get(number, signal.SIG_DFL)
        self.echo(f"tune: stopped at step {state.global_step}, which is saved; the same command goes on from there")
        self._quiet()
        if before is signal.SIG_DFL:
            leave(number, None)
        before(number, None)


def _end(number: int) -> None:
    """Leave without any clean-up: what is whole is sealed."""
    sys.stderr.flush()
    os._exit(128 + number)
