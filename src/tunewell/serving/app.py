"""The HTTP service as an ASGI app: routes over loaded models and a batcher.

A new endpoint is one coroutine method of `Service` and one line in `create_app`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from tunewell import __version__
from tunewell.errors import ModelError, TunewellError
from tunewell.hosts import Hosts, hosts_for
from tunewell.serving import schema
from tunewell.serving.batcher import Batcher, QueueFullError
from tunewell.serving.guard import Guard, Refusal, refusal_of
from tunewell.serving.metrics import CONTENT_TYPE, Metrics
from tunewell.serving.models import Models
from tunewell.serving.page import page
from tunewell.serving.schema import body_of
from tunewell.serving.why import Why

M = TypeVar("M", bound=BaseModel)
SHOWN_FAULTS = 5


@dataclass(frozen=True)
class Limits:
    """What one caller may ask for.

    Attributes:
        max_texts: texts a request.
        max_body: bytes a request.
        queue: texts that may wait in all.
        timeout: seconds until a request is given up (504).
        batch_size: texts a batch.
        max_wait_ms: milliseconds that a batch waits for company.
    """

    max_texts: int = 256
    max_body: int = 1 << 20
    queue: int = 1024
    timeout: float = 30.0
    batch_size: int = 64
    max_wait_ms: float = 2.0


class Service:
    """What the routes share.

    Args:
        api_key: asked for on all but the open paths; None asks for none.
        beyond: reached from other machines too; without a key, training rows are then shown to nobody.
    """

    def __init__(self, models: Models, limits: Limits, *, api_key: str | None = None, beyond: bool = False) -> None:
        self.shows_rows = api_key is not None or not beyond
        self.models, self.limits, self.api_key = models, limits, api_key
        self.draining = False
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            rows=limits.batch_size, room=limits.queue, wait=limits.max_wait_ms / 1000, observe=self.metrics.batch
        )
        self.why = Why()
        self._reloading = asyncio.Lock()
        self._tell_models()

    def _tell_models(self) -> None:
        self.metrics.serving({name: served.version for name, served in self.models.all.items()})

    async def predict(self, request: Request) -> Response:
        """Label texts. Which texts share a batch inside the service changes probabilities by rounding only."""
        asked = _parse(schema.PredictRequest, await request.body())
        if len(asked.texts) > self.limits.max_texts:
            raise Refusal(
                422,
                f"{len(asked.texts):,} texts in one request",
                where="texts",
                expected=f"at most {self.limits.max_texts:,}",
                remedy="send them in several requests, or start the service with a larger --max-texts",
            )
        served = self._model(asked.model)
        texts, pairs = asked.texts, asked.text_pairs
        try:
            served.need(texts, pairs)
        except TunewellError as error:
            raise refusal_of(422, error) from None
        full = [i for i, text in enumerate(texts) if served.whole(text, pairs[i] if pairs is not None else None)]
        answers: list[dict[str, Any]] = [{"prediction": None} for _ in texts]
        if full:
            try:
                async with asyncio.timeout(self.limits.timeout):
                    scores = await self.batcher.scores(
                        served, [texts[i] for i in full], [pairs[i] for i in full] if pairs is not None else None
                    )
            except QueueFullError as error:
                raise _full(error) from None
            except TimeoutError:
                raise _late(self.limits.timeout) from None
            try:
                told = served.answers(scores, asked.top_k, asked.probabilities)
            except TunewellError as error:
                raise refusal_of(422, error) from None
            for i, found in zip(full, told, strict=True):
                answers[i] = found
        return _json({"model": served.name, "version": served.version, "predictions": answers})

    async def explain(self, request: Request) -> Response:
        """The words behind answers, with their faithfulness. One request at a time, beside /predict."""
        asked = _parse(schema.ExplainRequest, await request.body())
        served = self._headed(asked.model)
        found = await self._ask(self.why.explain(served, asked, self.limits.timeout))
        return _json({"model": served.name, "version": served.version, "explanations": found})

    async def influence(self, request: Request) -> Response:
        """The training rows behind answers; the run's index of them must have been built."""
        if not self.shows_rows:
            raise Refusal(
                403,
                "showing training rows to whoever reaches this machine needs an API key",
                remedy="start the service with TUNEWELL_API_KEY, or bound to 127.0.0.1",
            )
        asked = _parse(schema.InfluenceRequest, await request.body())
        served = self._headed(asked.model)
        found = await self._ask(self.why.influence(served, asked, self.limits.timeout))
        return _json({"model": served.name, "version": served.version, "attributions": found})

    async def _ask(self, work: Awaitable[Any]) -> Any:
        """Its answer, or the user's mistake as a refusal."""
        try:
            return await work
        except QueueFullError as error:
            raise _full(error) from None
        except TimeoutError:
            raise _late(self.limits.timeout) from None
        except TunewellError as error:
            raise refusal_of(422, error) from None

    def _model(self, name: str | None) -> Any:
        try:
            return self.models.get(name)
        except ModelError as error:
            raise refusal_of(404, error) from None

    def _headed(self, name: str | None) -> Any:
        served = self._model(name)
        if not served.headed:
            raise Refusal(
                422,
                "its answers are no classes and no scores of a head",
                where=served.name,
                expected="a model with a head for classes or scores",
                remedy="`tunewell explain` and `tunewell influence` on the run itself",
            )
        return served

    async def list_models(self) -> Response:
        """The models by name; the first is the default."""
        return _json({"models": [served.describe() for served in self.models.all.values()]})

    async def healthz(self) -> Response:
        """200 while the service takes requests, 503 once it shuts down. Needs no key."""
        if self.draining:
            raise Refusal(503, "the service is shutting down")
        return _json({"status": "ok", "models": list(self.models.all)})

    async def reload(self, request: Request) -> Response:
        """Load again what lies at the models' paths (a link is followed anew) and swap it in; no request is lost."""
        if self.api_key is None:
            raise Refusal(
                403,
                "reloading over HTTP needs an API key",
                remedy="start the service with TUNEWELL_API_KEY, or send it the signal HUP",
            )
        body = await request.body()
        asked = _parse(schema.ReloadRequest, body) if body.strip() else schema.ReloadRequest()
        if asked.model is not None:
            self._model(asked.model)
        for outcome in await self.load_again(asked.model):
            if isinstance(outcome, TunewellError):
                raise refusal_of(409, outcome)
        return await self.list_models()

    async def load_again(self, name: str | None = None) -> list[Any]:
        """Reload one model or all beside the running ones; one reload at a time."""
        async with self._reloading:
            names = [name] if name is not None else list(self.models.all)
            outcomes = await asyncio.to_thread(self.models.reload, name)
            for model, outcome in zip(names, outcomes, strict=True):
                self.metrics.reloads.labels(model, "failed" if isinstance(outcome, TunewellError) else "done").inc()
            self._tell_models()
            return outcomes

    async def tell_metrics(self) -> Response:
        """Counters, latencies and batch sizes in Prometheus' text format."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def show_page(self) -> Response:
        """The try-it page."""
        html, policy = page()
        return Response(html, media_type="text/html", headers={"content-security-policy": policy})


def create_app(service: Service, *, hosts: Hosts | None = None, cors: tuple[str, ...] = ()) -> Any:
    """The ASGI app of a service.

    Args:
        hosts: the Host headers that are answered; by default the loopback's.
        cors: origins whose pages may call the service; none by default.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        service.batcher.close()
        service.why.close()

    app = FastAPI(
        title="tunewell",
        version=__version__,
        description="Tuned models, answering over HTTP.",
        docs_url=None,  # these pages load their scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to the host that the caller named
        lifespan=lifespan,
    )
    keyed = (401,) if service.api_key else ()

    def add(path: str, method: str, call: Any, model: type[BaseModel], *codes: int, **more: Any) -> None:
        if 401 in codes:  # either of the two
            extra = more.setdefault("openapi_extra", {})
            extra["security"] = [{name: []} for name in schema.KEYS]
        app.add_api_route(
            path,
            call,
            methods=[method],
            response_class=Response,
            responses={200: {"model": model}, **schema.responses(*codes)},
            **more,
        )

    full = (400, *keyed, 404, 408, 413, 422, 429, 504)
    add(
        "/predict",
        "POST",
        service.predict,
        schema.PredictResponse,
        *full,
        openapi_extra=body_of(schema.PredictRequest),
        summary="Label texts",
    )
    add(
        "/explain",
        "POST",
        service.explain,
        schema.ExplainResponse,
        *full,
        openapi_extra=body_of(schema.ExplainRequest),
        summary="The words that decided",
    )
    add(
        "/influence",
        "POST",
        service.influence,
        schema.InfluenceResponse,
        *full,
        409,
        openapi_extra=body_of(schema.InfluenceRequest),
        summary="The training rows behind answers",
    )
    add("/models", "GET", service.list_models, schema.ModelsResponse, *keyed, 413, summary="The models by name")
    add("/healthz", "GET", service.healthz, schema.Health, 413, 503, summary="Alive?")
    add(
        "/reload",
        "POST",
        service.reload,
        schema.ModelsResponse,
        *(400, *keyed, 403, 404, 408, 409, 413, 422),
        openapi_extra=body_of(schema.ReloadRequest, required=False),
        summary="Swap in a new run",
    )
    app.add_api_route("/metrics", service.tell_metrics, methods=["GET"], include_in_schema=False)
    app.add_api_route("/", service.show_page, methods=["GET"], include_in_schema=False)
    if keyed:
        _declare_keys(app)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    guarded = Guard(
        app,
        api_key=service.api_key,
        hosts=hosts_for("127.0.0.1") if hosts is None else hosts,
        origins=cors,
        max_body=service.limits.max_body,
        body_seconds=service.limits.timeout,
        note=service.metrics.request,
        draining=lambda: service.draining,
    )
    if not cors:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=list(cors),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-api-key"],
        expose_headers=["retry-after"],
    )


def _declare_keys(app: FastAPI) -> None:
    """How a caller shows its key, in the OpenAPI document."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        out = plain()
        out["components"]["securitySchemes"] = schema.KEYS
        return out

    app.openapi = document  # type: ignore[method-assign]


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def _parse(model: type[M], body: bytes) -> M:
    """A request's body, or a refusal that names each mistake. What was sent is not repeated."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        raise Refusal(
            400,
            f"the body is not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}",
            where="body",
            expected=f"a JSON object such as {to_json(_example(model)).decode()}",
        )
    told = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in faults[:SHOWN_FAULTS]]
    more = len(faults) - len(told)
    raise Refusal(
        422,
        "; ".join(told) + (f"; and {more} more" if more else ""),
        where=".".join(map(str, faults[0]["loc"])) or "body",
        expected=f"a JSON object such as {to_json(_example(model)).decode()}",
    )


def _example(model: type[BaseModel]) -> Any:
    return model.model_config["json_schema_extra"]["examples"][-1]  # type: ignore[index]


def _full(error: QueueFullError) -> Refusal:
    after = error.retry_after
    return Refusal(429, "the queue is full", remedy=f"try again in {after} s", headers={"retry-after": str(after)})


def _late(seconds: float) -> Refusal:
    return Refusal(
        504,
        f"no answer within {seconds:g} s",
        remedy="send fewer texts a request, or start the service with a larger --timeout",
    )


async def _refused(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return Response(refusal.body(), refusal.status, refusal.headers, "application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: "no such page", 405: "not with this method"}.get(error.status_code, str(error.detail))
    refusal = Refusal(error.status_code, what, expected="see /openapi.json", headers=dict(error.headers or {}))
    return Response(refusal.body(), refusal.status, refusal.headers, "application/json")


async def _fault(_: Request, error: Exception) -> Response:
    refusal = Refusal(500, f"this is a fault of tunewell ({type(error).__name__})", remedy="see the service's log")
    return Response(refusal.body(), refusal.status, refusal.headers, "application/json")
