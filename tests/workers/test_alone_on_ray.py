"""A Ray that a command starts for itself; in a file of its own, before the tests that share one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")]


def test_a_ray_of_its_own_ends_with_the_command(tmp_path: Path):
    """Ctrl-C in the middle of a job: no process and no file of Ray is left, and nothing of Ray's was printed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import chores\n"
        "from tunewell.workers import Shared, Workers, done\n"
        "about = {'folder': sys.argv[1]}\n"
        "shared = Shared(lambda: about, chores.opened, about)\n"
        "try:\n"
        "    list(done(chores.sleeps, [0], shared, Workers(ray='local'), threads=1))\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    place = tmp_path / "short"
    place.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(place), str(Path(__file__).parent)], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 240
    while not (place / "pid-0").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.2)
    assert (place / "pid-0").exists(), process.communicate()[1]
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in p.name() for p in started)
    folder = next(a for p in started for a in p.cmdline() if "/tw-" in a)
    folder = folder[folder.index("/tmp/tw-") :].split("/session")[0]
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (130, "")
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert not Path(folder).exists()
