"""The service held to its own OpenAPI document: schemathesis makes up requests, right and wrong ones.

Two ways: each operation by itself inside this process, and the whole program over a socket with schemathesis' own
command, which adds the boundary values of every key. https://schemathesis.readthedocs.io
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import tunewell

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

pytestmark = pytest.mark.slow
KEY = "a-key-for-tests"
OPERATIONS = (
    ("/predict", "POST"), ("/explain", "POST"), ("/influence", "POST"), ("/models", "GET"), ("/healthz", "GET"),
    ("/reload", "POST"),
)  # fmt: skip
# a request may fit its schema and name a label that no model has, bring two second texts for three texts, or ask for
# training rows of which no index was built
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409", "422"]
"""


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory, make_reviews, make_pairs, save_csv) -> dict[str, Path]:
    """Two finished runs: classes, with the index of their training rows; scores of pairs."""
    from tunewell.explain.influence.attribute import Influence

    place = tmp_path_factory.mktemp("fuzz")
    data = save_csv(place / "reviews.csv", make_reviews(120))
    pairs = save_csv(place / "pairs.csv", make_pairs(60), ("text", "text_pair", "label"))
    shared = {"model": str(tiny_model), "probes": ["none"], "explain": 0, "num_train_epochs": 1.0}
    quiet = {"echo": lambda line: None, "progress": False}
    made = {
        "reviews": tunewell.run(train=str(data), output_dir=str(place / "reviews"), **shared, **quiet).dir,
        "alike": tunewell.run(
            train=str(pairs), output_dir=str(place / "alike"), task="text-regression", **shared, **quiet
        ).dir,
    }
    Influence(made["reviews"]).explain(["a good seat"])
    return made


@pytest.fixture(scope="module")
def models(runs):
    """Both, loaded once."""
    from tunewell.serving.models import Models

    return Models(runs)


@pytest.fixture
def document(models):
    """The service as an app, with its document; an app for each test, since schemathesis ends it with the test."""
    from tunewell.hosts import hosts_for
    from tunewell.serving.app import Limits, Service, create_app

    service = Service(models, Limits(max_body=1 << 16, timeout=60), api_key=KEY)
    return schemathesis.openapi.from_asgi(
        "/openapi.json", create_app(service, hosts=hosts_for("127.0.0.1", ["testserver", "localhost"]))
    )


def test_no_operation_is_left_out(document):
    """Every route of the document is fuzzed below."""
    assert {(path, method.upper()) for path in document for method in document[path]} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [(path, method, GenerationMode.POSITIVE) for path, method in OPERATIONS]
    + [(path, method, GenerationMode.NEGATIVE) for path, method in OPERATIONS if method == "POST"],
    ids=lambda value: getattr(value, "value", str(value)),
)
def test_every_answer_is_as_the_document_says(document, path, method, mode):
    """No fault of ours; status, content type, headers and body as documented; what breaks the schema is refused."""
    statuses = set()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=document[path][method].as_strategy(generation_mode=mode))
    def fuzz(case):
        response = case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=[positive_data_acceptance]
        )
        statuses.add(response.status_code)

    fuzz()
    assert statuses <= {200, 400, 401, 404, 409, 413, 422}
    assert 200 in statuses or mode is GenerationMode.NEGATIVE


def test_the_whole_program_over_a_socket(runs, tmp_path):
    """`st run`: examples of the document, boundary values of every key, requests that are made up, other methods."""
    given = [f"{name}={path}" for name, path in runs.items()]
    source = str(Path(tunewell.__file__).parents[1])
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        [sys.executable, "-m", "tunewell", "serve", *given, "--port", "0", "--timeout", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TUNEWELL_API_KEY": KEY, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        address = server.stdout.readline().split()[-1]
        assert urllib.request.urlopen(f"{address}/healthz").status == 200
        (tmp_path / "schemathesis.toml").write_text(CONFIG)
        found = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--header",
             f"Authorization: Bearer {KEY}", "--phases", "examples,coverage,fuzzing", "--max-examples", "30", "--seed",
             "1", "--generation-deterministic", "--no-color"],
            cwd=tmp_path, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
        assert "Operations:       6 selected" in found.stdout
        assert server.poll() is None
    finally:
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in said
