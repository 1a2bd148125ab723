"""The service without a socket: answers, batching, limits, key, reload."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import shutil
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunewell.hosts import hosts_for
from tunewell.predict import Predictor
from tunewell.serving.app import Limits, Service, create_app
from tunewell.serving.batcher import Batch, Batcher
from tunewell.serving.models import Models, Served
from tunewell.serving.page import page

Call = Callable[..., Awaitable[tuple[int, dict[str, str], Any]]]


def caller(app: Any) -> Call:
    """A client that calls the app itself: (status, headers, JSON or text)."""

    async def call(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"content-length": str(len(raw)), **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        got = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        text = b"".join(m.get("body", b"") for m in sent[1:]).decode()
        return sent[0]["status"], got, json.loads(text) if "json" in got.get("content-type", "") else text

    return call


def run(models: Models, work: Callable[[Call, Service], Awaitable[Any]], limits: Limits | None = None, **more) -> Any:
    """`work(call, service)` against a service of its own."""

    async def inside() -> Any:
        service = Service(models, limits or Limits(), api_key=more.pop("api_key", None))
        try:
            return await work(caller(create_app(service, **more)), service)
        finally:
            held = models.get(None)
            if isinstance(held, Held):
                held.go.set()
            service.batcher.close()

    return asyncio.run(inside())


class Held(Served):
    """A model whose batches wait for `go`; `batches` keeps the sizes."""

    def scores(self, encoded: Any, batch_size: int) -> np.ndarray:
        self.batches.append(len(encoded["input_ids"]))
        self.started.set()
        assert self.go.wait(60)
        return super().scores(encoded, batch_size)


def hold(models: Models) -> Held:
    """Put a held model in the place of the first."""
    old = models.get(None)
    held = Held(old.name, old.path, old.predictor, old.version)
    held.batches, held.started, held.go = [], threading.Event(), threading.Event()
    models.all = {old.name: held}
    return held


async def until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen within a minute")


@pytest.fixture
def models(tiny_classifier: Path) -> Models:
    return Models({"tiny": tiny_classifier})


@pytest.fixture(scope="module")
def texts(make_reviews) -> list[str]:
    return [text for text, _ in make_reviews(60)]


@pytest.fixture(scope="module")
def expected(tiny_classifier: Path, texts: list[str]) -> np.ndarray:
    return Predictor.load(tiny_classifier).scores(texts)


def positive(answer: Any) -> list[float]:
    return [p["probabilities"]["positive"] for p in answer["predictions"]]


def test_answers_are_those_of_predict_one_by_one_and_in_shared_batches(models, texts, expected) -> None:
    held = hold(models)

    async def work(call: Call, service: Service) -> None:
        first = asyncio.create_task(call("POST", "/predict", {"texts": texts[:1]}))
        await until(held.started.is_set)
        rest = [asyncio.create_task(call("POST", "/predict", {"texts": [text]})) for text in texts[1:40]]
        rest.append(asyncio.create_task(call("POST", "/predict", {"texts": texts[40:]})))
        await until(lambda: service.batcher.waiting == 59)
        held.go.set()
        got = [await task for task in [first, *rest]]
        assert {status for status, _, _ in got} == {200}
        found = [p for _, _, answer in got for p in positive(answer)]
        assert found == pytest.approx(expected[:, 1].tolist(), abs=1e-5)
        assert held.batches == [1, 59]
        alone = [positive((await call("POST", "/predict", {"texts": [text]}))[2])[0] for text in texts[:10]]
        assert alone == pytest.approx(found[:10], abs=1e-5)
        metrics = (await call("GET", "/metrics"))[2]
        assert "tunewell_batch_rows_bucket" in metrics
        assert 'tunewell_texts_total{model="tiny"} 70.0' in metrics
        assert 'tunewell_requests_total{path="/predict",status="200"} 51.0' in metrics

    run(models, work)


def test_a_long_request_does_not_hold_up_a_short_one(models, texts) -> None:
    held = hold(models)
    seen: list[Batch] = []

    async def work() -> None:
        batcher = Batcher(rows=32, wait=0, observe=seen.append)
        first = asyncio.create_task(batcher.scores(held, texts[:1]))
        await until(held.started.is_set)
        long = asyncio.create_task(batcher.scores(held, texts))
        await until(lambda: batcher.waiting == 60)
        short = asyncio.create_task(batcher.scores(held, texts[:2]))
        await until(lambda: batcher.waiting == 62)
        held.go.set()
        await asyncio.gather(first, short, long)
        await asyncio.to_thread(batcher.close)
        # 16 rows of the long one, the two of the short one, then the long one again up to 32
        assert [(b.rows, b.requests) for b in seen] == [(1, 1), (32, 2), (30, 1)]
        assert len(await long) == 60

    asyncio.run(work())


def test_a_full_queue_is_answered_with_429_and_the_rest_is_served(models, texts) -> None:
    held = hold(models)

    async def work(call: Call, service: Service) -> None:
        tasks = [asyncio.create_task(call("POST", "/predict", {"texts": texts[:1]}))]
        await until(held.started.is_set)
        tasks.append(asyncio.create_task(call("POST", "/predict", {"texts": texts[:4]})))
        await until(lambda: service.batcher.waiting == 4)
        status, headers, answer = await call("POST", "/predict", {"texts": texts[:1]})
        assert (status, answer["error"]["what"]) == (429, "the queue is full")
        assert int(headers["retry-after"]) >= 1
        held.go.set()
        assert [(await task)[0] for task in tasks] == [200, 200]
        assert (await call("POST", "/predict", {"texts": texts[:4]}))[0] == 200

    run(models, work, Limits(queue=4, max_texts=4))


def test_a_late_answer_is_504_and_its_rows_leave_the_queue(models, texts) -> None:
    held = hold(models)

    async def work(call: Call, service: Service) -> None:
        got = await asyncio.gather(*(call("POST", "/predict", {"texts": [text]}) for text in texts[:3]))
        assert [status for status, _, _ in got] == [504] * 3
        assert got[0][2]["error"]["what"] == "no answer within 0.3 s"
        assert service.batcher.waiting == 0

    run(models, work, Limits(timeout=0.3))
    assert sum(held.batches) < 3 or held.batches[0] == 3  # what had not begun was never calculated


def test_an_error_in_the_model_is_told_and_the_service_goes_on(models, texts, monkeypatch) -> None:
    async def work(call: Call, service: Service) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Served, "scores", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):  # Starlette logs it after the answer is sent
                await call("POST", "/predict", {"texts": texts[:1]})
        assert (await call("POST", "/predict", {"texts": texts[:1]}))[0] == 200

    run(models, work)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": []}, 422, "texts: List should have at least 1 item"),
        ({"texts": "a"}, 422, "texts: Input should be a valid array"),
        ({"texts": ["a", 1, None]}, 422, "texts.1: Input should be a valid string; texts.2: Input should"),
        ({}, 422, "texts: Field required"),
        ([], 422, "body: Input should be an object"),
        ({"texts": ["a"], "topk": 1}, 422, "topk: Extra inputs are not permitted"),
        ({"texts": ["a"], "top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({"texts": ["a"] * 257}, 422, "257 texts in one request"),
        ({"texts": ["a"], "text_pairs": ["a", "b"]}, 422, "1 texts but 2 second texts"),
        ({"texts": ["a"], "model": "tinny"}, 404, "no such model"),
        (b"", 400, "the body is not JSON"),
        (b'{"texts": ["\\ud800"]}', 400, "the body is not JSON"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b" " * 2000, 413, "the body is too large"),
    ],
)
def test_mistakes(models, body: Any, status: int, words: str) -> None:
    async def work(call: Call, _: Service) -> None:
        got, _, answer = await call("POST", "/predict", body)
        assert got == status
        assert words in answer["error"]["what"]
        if status == 404:
            assert answer["error"]["remedy"] == "did you mean `tiny`?"

    run(models, work, Limits(max_body=1999))


def test_what_may_be_asked_for(models) -> None:
    async def work(call: Call, _: Service) -> None:
        ask = {"texts": ["good fine", " "]}
        _, _, all_of = await call("POST", "/predict", ask)
        full, blank = all_of["predictions"]
        assert blank == {"prediction": None}
        assert sum(full["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        _, _, one = await call("POST", "/predict", {**ask, "top_k": 1, "model": "tiny"})
        assert one["predictions"][0]["probabilities"] == {full["prediction"]: full["probabilities"][full["prediction"]]}
        _, _, none = await call("POST", "/predict", {**ask, "probabilities": False})
        assert none["predictions"][0] == {"prediction": full["prediction"]}
        assert (await call("GET", "/predict"))[0] == 405
        assert (await call("GET", "/none"))[2]["error"]["what"] == "no such page"
        listed = (await call("GET", "/models"))[2]["models"][0]
        assert (listed["labels"], listed["version"]) == (["negative", "positive"], all_of["version"])

    run(models, work)


def test_pairs(models, tiny_classifier: Path) -> None:
    old = models.get(None)
    old.predictor.spec = dataclasses.replace(old.predictor.spec, pair=True)
    expected = old.predictor.scores(["a good crew"], ["a bad seat"])[0, 1]

    async def work(call: Call, _: Service) -> None:
        status, _, answer = await call("POST", "/predict", {"texts": ["a good crew"]})
        assert (status, answer["error"]["what"]) == (422, "this model was tuned on pairs of texts")
        _, _, answer = await call("POST", "/predict", {"texts": ["a good crew"], "text_pairs": ["a bad seat"]})
        assert positive(answer) == pytest.approx([expected], abs=1e-5)

    run(models, work)


def test_second_texts_for_a_run_of_single_texts(models) -> None:
    predictor = models.get(None).predictor
    predictor.run = Path("reviews")

    async def work(call: Call, _: Service) -> None:
        status, _, answer = await call("POST", "/predict", {"texts": ["good"], "text_pairs": ["bad"]})
        assert (status, answer["error"]["what"]) == (422, "this model was tuned on single texts")
        assert answer["error"]["where"] == "text_pairs"

    run(models, work)


def test_the_key(models) -> None:
    async def work(call: Call, _: Service) -> None:
        for path in ("/healthz", "/", "/openapi.json"):
            assert (await call("GET", path))[0] == 200
        ask = {"texts": ["good"]}
        for headers in ({}, {"x-api-key": "secre"}, {"authorization": "Bearer other"}, {"authorization": "secret"}):
            status, got, _ = await call("POST", "/predict", ask, headers)
            assert (status, got["www-authenticate"]) == (401, "Bearer")
        assert (await call("GET", "/metrics"))[0] == 401
        for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}):
            assert (await call("POST", "/predict", ask, headers))[0] == 200

    run(models, work, api_key="secret")


def test_headers_and_cors(models) -> None:
    origin = {"origin": "https://a.example"}

    async def closed(call: Call, _: Service) -> None:
        _, headers, _ = await call("GET", "/healthz", headers=origin)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in headers

    async def opened(call: Call, _: Service) -> None:
        _, headers, _ = await call("POST", "/predict", b"no JSON", headers=origin)
        assert headers["access-control-allow-origin"] == "https://a.example"
        assert (
            "access-control-allow-origin"
            not in (await call("GET", "/healthz", headers={"origin": "https://b.example"}))[1]
        )

    run(models, closed)
    run(models, opened, cors=("https://a.example",))


@pytest.fixture
def link(tiny_classifier: Path, tmp_path: Path) -> Path:
    """A link to a copy of the classifier, `old`, beside another, `new`, whose answers are the other way round."""
    from safetensors.torch import load_file, save_file

    for name in ("old", "new"):
        shutil.copytree(tiny_classifier, tmp_path / name)
    weights = load_file(tmp_path / "new" / "model.safetensors")
    for key in ("classifier.weight", "classifier.bias"):
        weights[key] = -weights[key]
    save_file(weights, tmp_path / "new" / "model.safetensors", {"format": "pt"})
    (tmp_path / "current").symlink_to("old")
    return tmp_path / "current"


def test_reload_swaps_the_model_and_a_broken_one_changes_nothing(link: Path) -> None:
    key = {"x-api-key": "k"}

    async def work(call: Call, _: Service) -> None:
        async def ask() -> tuple[str, float]:
            answer = (await call("POST", "/predict", {"texts": ["good fine"]}, key))[2]
            return answer["version"], positive(answer)[0]

        before = await ask()
        link.unlink()
        link.symlink_to("new")
        assert (await ask()) == before
        status, _, answer = await call("POST", "/reload", headers=key)
        after = await ask()
        assert (status, answer["models"][0]["version"]) == (200, after[0])
        assert after[0] != before[0]
        assert after[1] == pytest.approx(1 - before[1], abs=1e-5)
        (link / "model.safetensors").unlink()
        status, _, answer = await call("POST", "/reload", {"model": "now"}, key)
        assert (status, answer["error"]["what"]) == (409, "has no weights")
        assert (await ask()) == after
        assert (await call("POST", "/reload", {"model": "no"}, key))[0] == 404
        assert (
            'tunewell_reloads_total{model="now",result="failed"} 1.0' in (await call("GET", "/metrics", None, key))[2]
        )

    run(Models({"now": link}), work, api_key="k")


def test_reload_over_http_needs_a_key(models) -> None:
    async def work(call: Call, _: Service) -> None:
        assert (await call("POST", "/reload"))[0] == 403

    run(models, work)


def test_a_draining_service_says_so(models) -> None:
    async def work(call: Call, service: Service) -> None:
        service.draining = True
        status, headers, _ = await call("GET", "/healthz")
        assert (status, headers["connection"]) == (503, "close")
        status, headers, _ = await call("POST", "/predict", {"texts": ["good"]})
        assert (status, headers["connection"]) == (200, "close")

    run(models, work)


def test_openapi_examples_are_answered(models) -> None:
    async def work(call: Call, _: Service) -> None:
        document = (await call("GET", "/openapi.json"))[2]
        content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert (await call("POST", "/predict", example["value"]))[0] == 200
        assert {"400", "404", "413", "422", "429", "504"} <= set(document["paths"]["/predict"]["post"]["responses"])

    run(models, work)


def test_the_document_tells_how_to_show_a_key(models) -> None:
    """So that client generators ask for one; found by fuzzing."""
    open_paths = {"/healthz"}

    async def work(call: Call, _: Service) -> None:
        document = (await call("GET", "/openapi.json"))[2]
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        for path, methods in document["paths"].items():
            for told in methods.values():
                assert told.get("security") == (None if path in open_paths else [{"bearer": []}, {"header": []}])
                assert ("401" in told["responses"]) is (path not in open_paths)
        status, headers, _ = await call("GET", "/models")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "WWW-Authenticate" in document["paths"]["/models"]["get"]["responses"]["401"]["headers"]
        assert "Retry-After" in document["paths"]["/predict"]["post"]["responses"]["429"]["headers"]
        right, wrong = "Bearer k", "Bearer other"
        both = [(right, "other"), (wrong, "k"), (right, "")]  # one may be a proxy's
        for shown in (
            {"authorization": right},
            {"x-api-key": "k"},
            *({"authorization": bearer, "x-api-key": key} for bearer, key in both),
        ):
            assert (await call("GET", "/models", headers=shown))[0] == 200, shown
        for shown in ({"authorization": wrong}, {"authorization": "k"}, {"authorization": wrong, "x-api-key": ""}):
            assert (await call("GET", "/models", headers=shown))[0] == 401, shown

    run(models, work, api_key="k")

    async def without(call: Call, _: Service) -> None:
        document = (await call("GET", "/openapi.json"))[2]
        assert "securitySchemes" not in document["components"]
        assert "security" not in document["paths"]["/predict"]["post"]

    run(models, without)


def test_a_path_that_is_nearly_right_is_no_redirect(models) -> None:
    """It would lead to the host that the caller's header names, and away from TLS behind a proxy."""

    async def work(call: Call, _: Service) -> None:
        status, headers, answer = await call("POST", "/predict/", {"texts": ["good"]}, {"host": "elsewhere.example"})
        assert (status, answer["error"]["what"]) == (404, "no such page")
        assert "location" not in headers

    run(models, work, hosts=hosts_for("0.0.0.0", ("*",)))


def test_second_texts_are_none_or_some(models) -> None:
    async def work(call: Call, _: Service) -> None:
        for path in ("/predict", "/explain", "/influence"):
            status, _, answer = await call("POST", path, {"texts": ["good"], "text_pairs": []})
            assert (status, answer["error"]["where"]) == (422, "text_pairs"), path
        document = (await call("GET", "/openapi.json"))[2]
        content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"]["properties"]["text_pairs"]["anyOf"][0]["minItems"] == 1

    run(models, work)


def test_the_page_needs_nobody_else_and_speaks_two_languages() -> None:
    html, policy = page()
    assert not re.findall(r"(?:src|href)=[\"'](?:https?:)?//", html)
    assert policy.count("'sha256-") == 2
    said = set(re.findall(r'data-say="(\w+)"', html))
    english, chinese = (
        set(re.findall(r"[ ,{](\w+): [\"nm(]", html[html.index(f"  {code}: {{") :].split("  }", 1)[0]))
        for code in ("en", "zh")
    )
    assert said <= english
    assert english == chinese


def test_bf16_gives_the_labels_of_fp32(tiny_classifier, make_reviews):
    """Close calls are calculated again: their probabilities are those of fp32 to the last digit."""
    import numpy as np

    from tunewell.models.twice import close_calls
    from tunewell.serving.models import load

    texts = [text for text, _ in make_reviews(80)]
    exact, fast = (load("m", tiny_classifier, bf16=bf16) for bf16 in (False, True))
    p = exact.scores(exact.encode(texts, None), 64)
    q = fast.scores(fast.encode(texts, None), 64)
    assert (p.argmax(1) == q.argmax(1)).all()
    assert np.abs(p - q).max() < 0.05
    again = close_calls(q, False) & close_calls(p, False)
    assert again.any()
    assert not again.all()
    assert np.allclose(p[again], q[again], atol=1e-6)
    assert not np.allclose(p[~again], q[~again], atol=1e-6)
    assert fast.describe()["precision"] == "bf16, close calls in fp32"
    assert (exact.again, fast.again) == (0, close_calls(fast_alone(fast, texts), False).sum())


def fast_alone(served: Served, texts: list[str]) -> Any:
    """Probabilities in bf16 throughout."""
    from tunewell.models.embed import logits
    from tunewell.tasks.spec import scores_of

    p = served.predictor
    return scores_of(p.spec, logits(p.model, p.tokenizer, texts, max_length=p.max_length, bf16=True))


# ---------------------------------------------------------------- who may call


def _asked(models: Models, headers: dict[str, str], method: str = "POST", **more: Any) -> int:
    """The status of a prediction (of /models for GET) that is asked for with these headers."""

    async def work(call: Call, _: Service) -> int:
        path, body = ("/predict", {"texts": ["good crew"]}) if method == "POST" else ("/models", None)
        return (await call(method, path, body, headers))[0]

    return run(models, work, **more)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("bound", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "localhost:8000", 200),
        ("127.0.0.1", "evil.example:8000", 421),
        ("127.0.0.1", "localhost.evil.example", 421),
        ("0.0.0.0", "10.244.0.17:8000", 200),  # as a kubelet and Prometheus call
        ("0.0.0.0", socket.gethostname(), 200),
        ("0.0.0.0", "evil.example:8000", 421),
        ("0.0.0.0", "api.example.org", 200),  # allowed below
        ("192.168.1.7", "192.168.1.7:8000", 200),
        ("192.168.1.7", "evil.example", 421),
    ],
)
def test_a_page_that_points_its_name_here_is_not_answered(
    models: Models, bound: str, host: str, status: int, method: str
) -> None:
    hosts = hosts_for(bound, ("*.example.org",))
    assert _asked(models, {"host": host}, method, hosts=hosts) == status


def test_any_name_where_all_are_allowed_and_the_refusal_names_the_option(models: Models) -> None:
    assert _asked(models, {"host": "anything.example"}, hosts=hosts_for("0.0.0.0", ("*",))) == 200

    async def work(call: Call, _: Service) -> None:
        status, headers, answer = await call("GET", "/healthz", None, {"host": "api.example.org:80"})
        assert status == 421
        assert "--allowed_hosts api.example.org" in answer["error"]["remedy"]
        assert headers["x-content-type-options"] == "nosniff"

    run(models, work)


OWN = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://app.example", "sec-fetch-site": "same-origin"}, 200),  # a proxy has renamed the host
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "https://allowed.example", "sec-fetch-site": "cross-site"}, 200),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999", "sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_posts_of_other_pages_are_refused(models: Models, headers: dict[str, str], status: int) -> None:
    assert _asked(models, {**OWN, **headers}, cors=("https://allowed.example",)) == status


def test_any_page_may_call_where_all_may(models: Models) -> None:
    assert _asked(models, {**OWN, "origin": "null"}, cors=("*",)) == 200


@pytest.mark.parametrize(("beyond", "api_key", "status"), [(True, None, 403), (True, "k", 409), (False, None, 409)])
def test_training_rows_are_shown_beyond_this_machine_with_a_key_only(
    models: Models, beyond: bool, api_key: str | None, status: int
) -> None:
    """409: the tiny model is no run, so that it has no training rows to show."""

    async def inside() -> tuple[int, Any]:
        service = Service(models, Limits(), api_key=api_key, beyond=beyond)
        try:
            call = caller(create_app(service))
            key = {"x-api-key": api_key} if api_key else {}
            found, _, answer = await call("POST", "/influence", {"texts": ["good crew"]}, key)
            return found, answer
        finally:
            service.batcher.close()
            service.why.close()

    found, answer = asyncio.run(inside())
    assert (found, "TUNEWELL_API_KEY" in str(answer)) == (status, status == 403), answer
