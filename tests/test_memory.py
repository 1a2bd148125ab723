"""Memory that is freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunewell.memory import give_back, peak_memory_mb

PROGRAM = """
import os
from tunewell.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

held = [bytearray(100_000) for _ in range(3000)]  # too small to be given back one by one
pins = [bytearray(100) for _ in range(10)]
full = resident()
del held
freed = resident()
last = bytearray(100)
give_back()
print(full, freed, resident())
"""


def test_the_peak_is_at_least_what_was_allocated() -> None:
    before = peak_memory_mb()
    assert before > 1
    bytearray(int((before + 50) * 2**20))  # freed at once
    give_back()
    assert peak_memory_mb() >= before + 50


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where the system tells it")
def test_the_peak_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    bytearray(int((peak_memory_mb() + 50) * 2**20))
    program = "from tunewell.memory import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60 < peak_memory_mb()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_freed_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    full, _, after = map(float, done.stdout.split())
    assert full > 286  # 3,000 times 100 kB
    assert after < full - 250
