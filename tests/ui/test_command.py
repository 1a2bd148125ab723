"""The command itself: it prints the address with the key, answers there, and ends when it is told to."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_the_command_answers_and_ends(runs, number, code):
    command = [sys.executable, "-m", "tunewell", "ui", str(runs), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = re.fullmatch(r"runs of (.+) at (http://127\.0\.0\.1:\d+/\?token=\S+)\n", process.stdout.readline())
        assert address
        assert address[1] == str(runs)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        with opener.open(address[2], timeout=30) as answer:
            assert b"deep/b" in answer.read()
            assert "token" not in answer.geturl()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said
