"""Dynamic batching: requests wait in one bounded queue, a worker thread answers many at a time.

While the model works, new requests gather; the next batch takes rows of them in turn, at most
`SHARE` of one request at a time, so that a request of many texts does not hold up one of a single
text. A lone caller never waits for company: only when the last batch held several requests does the
worker give others up to `wait` seconds to join.

Rows of a batch are sorted by length and padded in groups of at most 1,024 tokens (see
`models.embed.like_length`), as in `tunewell predict`; which texts share a batch changes answers by rounding only.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tunewell.serving.models import Served

SHARE = 16  # rows that a request may add before others have their turn
FADE = 0.9  # of the running mean of seconds a row


class QueueFullError(Exception):
    """There is no room for so many rows now.

    Attributes:
        retry_after: whole seconds after which there should be.
    """

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"queue is full; try again in {retry_after} s")


@dataclass(eq=False)
class _Job:
    """One request under way: rows that are not yet in a batch, and answers so far."""

    served: Served
    texts: Sequence[str]
    pairs: Sequence[str] | None
    future: asyncio.Future[np.ndarray]
    loop: asyncio.AbstractEventLoop
    next: int = 0
    parts: list[np.ndarray] = field(default_factory=list)

    @property
    def kind(self) -> tuple[Served, bool]:
        """Rows of one kind may share a batch."""
        return self.served, self.pairs is None

    def settle(self, error: Exception | None) -> None:
        """Hand over the answer; runs in the event loop."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(np.concatenate(self.parts))


@dataclass(frozen=True)
class Batch:
    """What is told of a batch for the metrics: rows, requests, tokens without padding, seconds."""

    model: str
    rows: int
    requests: int
    tokens: int
    seconds: float


class Batcher:
    """The queue and its worker.

    Args:
        rows: rows a batch at the most.
        room: rows that may wait.
        wait: seconds that a batch may wait for company.
        observe: called in the worker thread after each batch.
    """

    def __init__(
        self, *, rows: int = 64, room: int = 1024, wait: float = 0.002, observe: Callable[[Batch], None] | None = None
    ) -> None:
        self.rows, self.room, self.wait, self.observe = rows, room, wait, observe
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_a_row = 0.01
        self._thread = threading.Thread(target=self._work, name="tunewell-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._waiting

    async def scores(self, served: Served, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Scores of n ≥ 1 texts, (n, C) or (n,). Cancelled, its rows that are not in a batch yet are dropped.

        Raises:
            QueueFullError: the queue has no room.
        """
        loop = asyncio.get_running_loop()
        job = _Job(served, texts, pairs, loop.create_future(), loop)
        with self._changed:
            if self._closed:
                raise QueueFullError(1)
            if self._waiting + len(texts) > self.room:
                raise QueueFullError(max(1, math.ceil(self._waiting * self._seconds_a_row)))
            self._jobs.append(job)
            self._waiting += len(texts)
            self._changed.notify()
        try:
            return await job.future
        finally:
            if job.next < len(texts):
                self._drop(job)

    def _drop(self, job: _Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.texts) - job.next

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        company = False
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                if company and not self._closed:
                    end = time.monotonic() + self.wait
                    while self._waiting < self.rows and (left := end - time.monotonic()) > 0:
                        self._changed.wait(left)
                batch = self._take()
            if batch:
                company = len(batch) > 1
                self._answer(batch)

    def _take(self) -> list[tuple[_Job, int, int]]:
        """Rows for one batch, all of the kind of the first request: (request, from, to)."""
        batch: dict[_Job, list[int]] = {}
        room, others = self.rows, deque[_Job]()
        kind = self._jobs[0].kind if self._jobs else None
        if kind is not None and kind[0].most is not None:
            room = min(room, kind[0].most)
        while self._jobs and room:
            job = self._jobs.popleft()
            if job.kind != kind:
                others.append(job)
                continue
            count = min(SHARE, room, len(job.texts) - job.next)
            batch.setdefault(job, [job.next, 0])
            job.next += count
            batch[job][1] = job.next
            room -= count
            self._waiting -= count
            if job.next < len(job.texts):
                self._jobs.append(job)
        self._jobs.extendleft(reversed(others))  # those of another kind are first next time
        return [(job, start, stop) for job, (start, stop) in batch.items()]

    def _answer(self, batch: list[tuple[_Job, int, int]]) -> None:
        started = time.perf_counter()
        served = batch[0][0].served
        texts = [text for job, start, stop in batch for text in job.texts[start:stop]]
        error: Exception | None = None
        tokens = 0
        try:
            pairs: list[str] | None = None
            if batch[0][0].pairs is not None:
                pairs = [text for job, start, stop in batch for text in (job.pairs or ())[start:stop]]
            encoded = served.encode(texts, pairs)
            tokens = sum(map(len, encoded["input_ids"]))
            scores = served.scores(encoded, self.rows)
        except Exception as fault:  # told to the callers; the worker goes on
            error = fault
        at, done = 0, []
        for job, start, stop in batch:
            if error is None:
                job.parts.append(scores[at : at + stop - start])
                at += stop - start
            if error is not None and job.next < len(job.texts):
                self._drop(job)
            if error is not None or job.next == len(job.texts):
                done.append(job)
        seconds = time.perf_counter() - started
        self._seconds_a_row = FADE * self._seconds_a_row + (1 - FADE) * seconds / len(texts)
        if self.observe is not None:
            self.observe(Batch(served.name, len(texts), len(batch), tokens, seconds))
        for loop in {job.loop for job in done}:
            _in_loop(loop, partial(_settle, [job for job in done if job.loop is loop], error))


def _settle(jobs: list[_Job], error: Exception | None) -> None:
    for job in jobs:
        job.settle(error)


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
        loop.call_soon_threadsafe(call)
