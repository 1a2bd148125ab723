"""`tunewell serve` as a process: it is told to reload and to stop while others call it, and loses no request."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunewell.cli import app

CLIENTS = 4


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_reload_and_stop_under_load_lose_nothing(tiny_classifier: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunewell", "serve", f"tiny={tiny_classifier}", "--port", "0", "--threads", "1"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"serving tiny at http://127\.0\.0\.1:(\d+)\n", line)
        assert found, line + log.read_text()
        port = int(found.group(1))
        counts, lost, refused = [0] * CLIENTS, [], [False] * CLIENTS

        def client(number: int) -> None:
            """Calls on until connections are refused; whatever else goes wrong is a lost request."""
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            body = json.dumps({"texts": [f"good crew {number}"] * (number + 1)})
            while True:
                if connection.sock is None:
                    try:
                        connection.connect()
                    except ConnectionRefusedError:
                        refused[number] = True
                        return
                try:
                    connection.request("POST", "/predict", body)
                    answer = connection.getresponse()
                    read = json.loads(answer.read())
                    if answer.status != 200 or len(read["predictions"]) != number + 1:
                        lost.append((answer.status, read))
                except (OSError, http.client.HTTPException, ValueError) as error:
                    lost.append(repr(error))
                    return
                counts[number] += 1

        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        wait_for(lambda: min(counts) >= 5 or lost)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "loaded again: tiny" in log.read_text() or lost)
        at_reload = list(counts)
        wait_for(lambda: all(now > then + 5 for now, then in zip(counts, at_reload, strict=True)) or lost)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert lost == []
        assert all(refused)
        assert process.wait(60) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def wait_for(true) -> None:
    waiting = threading.Event()
    for _ in range(6000):
        if true():
            return
        waiting.wait(0.02)
    raise AssertionError("did not happen within two minutes")


def test_a_taken_port(tiny_classifier: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", str(tiny_classifier), "--port", str(port)])
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}: the port is taken by another program" in result.stderr
    assert "--port 0 for a free one" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{none}"], "no such run or model folder"),
        (["{unfinished}"], "this run has no model yet"),
        (["{model}", "{model}"], "two models are called `tiny-classifier`"),
        (["{model}", "--host", "no.such.host.invalid"], "no such host"),
        (["{model}", "--host", "203.0.113.7"], "cannot listen"),
        (["{model}", "--port", "70000"], "70000 is not in the range"),
        (["{model}", "--queue", "8"], "--queue 8 is less than --max-texts 256"),
        (["{model}", "--cors", "not-a-url"], "'not-a-url': expected an origin without a path"),
        (["{model}", "--cors", "https://app.example/"], "did you mean https://app.example?"),
        (["{model}", "--allowed-hosts", "http://api.example.org"], "expected a name or address without scheme"),
        (["{model}", "--allowed-hosts", ""], "expected a name or address"),
        ([], "missing argument"),
    ],
)
def test_mistakes(tiny_classifier: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.yaml").write_text("train: a.csv\n")
    places = {"none": tmp_path / "none", "unfinished": tmp_path / "unfinished", "model": tiny_classifier}
    result = CliRunner().invoke(app, ["serve", "--port", "0", *(a.format(**places) for a in arguments)])
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr


def test_an_empty_key_would_let_everyone_in(tiny_classifier: Path) -> None:
    result = CliRunner().invoke(app, ["serve", str(tiny_classifier), "--port", "0"], env={"TUNEWELL_API_KEY": " "})
    assert result.exit_code == 2
    assert "TUNEWELL_API_KEY is set but empty" in result.stderr


def test_missing_packages_are_named(tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewell import extras

    monkeypatch.setitem(extras.EXTRAS, "serve", ("no_such_package",))
    result = CliRunner().invoke(app, ["serve", str(tiny_classifier)])
    assert result.exit_code == 2
    assert "no-such-package is not installed" in result.stderr
    assert "pip install 'tunewell[serve]'" in result.stderr
