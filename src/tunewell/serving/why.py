"""Explanations and influence beside predictions: one request at a time, in a thread and on a model of their own.

They hook into layers and take gradients, so they never touch the model that answers /predict. The copy is made when it
is first asked for. Requests beyond `ROOM` are turned away; one whose caller gave up is finished before the next.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tunewell.errors import TunewellError
from tunewell.serving.batcher import QueueFullError
from tunewell.serving.guard import Refusal
from tunewell.serving.models import Served, version_of
from tunewell.serving.schema import ExplainRequest, InfluenceRequest

ROOM = 8  # requests that may wait
RETRY_AFTER = 5  # seconds


class Why:
    """What the routes /explain and /influence share."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tunewell-why")
        self._waiting = 0
        self._model: tuple[Served, Any] | None = None
        self._influence: tuple[Served, Any] | None = None

    async def explain(self, served: Served, asked: ExplainRequest, seconds: float) -> list[dict[str, Any]]:
        """One explanation a text; see `tunewell.explain.texts.explain_texts`."""
        from tunewell.explain.texts import explain_texts

        def work() -> list[dict[str, Any]]:
            budget = min(asked.budget, seconds)
            found = explain_texts(
                self._own(served), asked.texts, asked.text_pairs, method=asked.method, target=asked.target,
                budget=budget, seed=asked.seed,
            )  # fmt: skip
            return [e.to_dict() for e in found]

        return await self._run(work, seconds)

    async def influence(self, served: Served, asked: InfluenceRequest, seconds: float) -> list[dict[str, Any]]:
        """The training rows behind each text's answer; see `tunewell.explain.influence.attribute.Influence`."""

        def work() -> list[dict[str, Any]]:
            traced = self._traced(served)
            found = traced.explain(asked.texts, asked.text_pairs, label=asked.label, method=asked.method, top=asked.top)
            return [a.to_dict() for a in found]

        return await self._run(work, seconds)

    def close(self) -> None:
        """End the thread once it has finished what it is at."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], Any], seconds: float) -> Any:
        if self._waiting >= ROOM:
            raise QueueFullError(RETRY_AFTER)
        self._waiting += 1
        job = asyncio.get_running_loop().run_in_executor(self._pool, work)
        job.add_done_callback(self._done)
        async with asyncio.timeout(seconds):
            return await asyncio.shield(job)

    def _done(self, job: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not job.cancelled():
            job.exception()  # nobody may be there to see it

    def _own(self, served: Served) -> Any:
        """A predictor with a copy of the model in fp32, for the thread alone."""
        if self._model is None or self._model[0] is not served:
            predictor = served.predictor
            self._model = served, replace(predictor, model=copy.deepcopy(predictor.model))
        return self._model[1]

    def _traced(self, served: Served) -> Any:
        """The run with its index of training rows, which must be there and be that of the served weights."""
        from tunewell.explain.influence.attribute import Influence
        from tunewell.explain.influence.index import is_built

        if self._influence is None or self._influence[0] is not served:
            try:
                traced = Influence(served.path)
            except TunewellError as error:  # where things lie on this machine is nothing for callers
                raise Refusal(
                    409, error.what, where=served.name, expected=error.expected,
                    remedy="whoever runs the service can mend it: `tunewell influence` says more",
                ) from None  # fmt: skip
            if version_of(traced.predictor.source) != served.version:
                raise Refusal(
                    409,
                    "the run has changed since it was loaded",
                    where=served.name,
                    expected="the weights that the service answers with",
                    remedy="POST /reload",
                )
            if not is_built(traced.file):
                raise Refusal(
                    409,
                    "the index of the training rows is not built",
                    where=served.name,
                    expected="a run whose influence was asked for before",
                    remedy="`tunewell influence` on the run with any text, once; building takes a while",
                )
            self._influence = served, traced
        return self._influence[1]
