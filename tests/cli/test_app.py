"""The command line as a whole: help, laziness, and what users see of errors."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import tunewell
from tunewell.cli import COMMANDS, app
from tunewell.errors import DataError, GateError

HEAVY = ("torch", "transformers", "datasets", "pandas", "numpy", "sklearn", "scipy", "pydantic", "pyarrow")
TRAIN_WHAT = "error: tunewell tune: option '--train' requires an argument\n  try: `tunewell tune --help`\n"
ALL = [name for commands in COMMANDS.values() for name in commands]


def invoke(*args: str, **options) -> Result:
    return CliRunner().invoke(app, list(args), **options)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`tunewell report` meets this error."""

    def build(*_, **__):
        raise error

    monkeypatch.setattr(import_module("tunewell.run"), "load_run", build)


def python(code: str, *args: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("args", [[], ["--help"], ["--version"], ["run", "-h"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    allowed = {"pydantic"} if args[:1] == ["run"] else set()
    code = (
        "import sys, contextlib\nfrom tunewell.cli import app\n"
        "with contextlib.suppress(SystemExit): app(sys.argv[1:])\n"
        f"print('HEAVY', sorted(m for m in {set(HEAVY) - allowed} if m in sys.modules))"
    )
    done = python(code, *args)
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr


def test_help_lists_every_command_and_exits_0() -> None:
    for args in ([], ["--help"], ["-h"]):
        result = invoke(*args)
        assert result.exit_code == 0
        assert all(f"\n  {name} " in result.output for name in ALL)
    assert "_TUNEWELL_COMPLETE=bash_source" in result.output


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"tunewell {name}" in result.output.split("Examples:")[1]
    assert "--debug" in result.output


def test_every_module_has_its_line() -> None:
    for commands in COMMANDS.values():
        for name, (module, line) in commands.items():
            command = import_module(module).command
            assert isinstance(command, click.Command)
            assert command.name == name
            assert line.endswith(".")
            assert len(line) < 80


def test_version() -> None:
    assert invoke("--version").output == f"tunewell {tunewell.__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["rnu"], "error: tunewell: no such command `rnu`; did you mean `run`?\n  try: `tunewell --help`\n"),
        (["xyzzy"], "error: tunewell: no such command `xyzzy`\n  try: `tunewell --help`\n"),
        (
            ["run", "--modle", "x"],
            "error: tunewell run: no such option `--modle`\n  try: did you mean `--model`?; `tunewell run --help`\n",
        ),
        (
            ["run", "--learning-rat", "x"],
            "error: tunewell run: no such option `--learning_rat`\n"
            "  try: did you mean `--learning_rate`?; `tunewell run --help`\n",
        ),
        (["evaluate"], "error: tunewell evaluate: missing argument 'RUN'\n  try: `tunewell evaluate --help`\n"),
        (
            ["run", "--train"],
            "error: tunewell run: option '--train' requires an argument\n  try: `tunewell run --help`\n",
        ),
        (["--xyzzy"], "error: tunewell: no such option `--xyzzy`\n  try: `tunewell --help`\n"),
        (
            ["check", "a", "b", "c", "d"],
            "error: tunewell check: 4 files; expected one, two (train, test) or three (train, validation, test)\n"
            "  try: `tunewell check --help`\n",
        ),
    ],
)
def test_a_mistake_on_the_command_line(args: list[str], message: str) -> None:
    result = invoke(*args)
    assert (result.exit_code, result.stderr, result.stdout) == (2, message, "")


def test_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    error = DataError("no column `txt`", where="a.csv", expected="one of text, label", remedy="did you mean `text`?")
    fail_with(monkeypatch, error)
    result = invoke("report", "x")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: a.csv: no column `txt`\n  expected: one of text, label\n  try: did you mean `text`?\n"
    )


def test_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, GateError("keep is not met"))
    result = invoke("report", "x")
    assert (result.exit_code, result.stderr) == (3, "gate: keep is not met\n")


def test_fault_of_ours_is_one_line_and_the_trace_comes_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("division\nby zero"))
    result = invoke("report", "x")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: this is a fault of tunewell (ZeroDivisionError: division by zero, in cli/report.py:"
    )
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr
    for args in (["report", "x", "--debug"], ["--debug", "report", "x"]):
        assert "Traceback" in invoke(*args).stderr
    assert "TUNEWELL_DEBUG" not in os.environ
    assert "Traceback" in invoke("report", "x", env={"TUNEWELL_DEBUG": "1"}).stderr


def test_debug_shows_where_a_users_mistake_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, DataError("bad"))
    result = invoke("report", "x", "--debug")
    assert "Traceback" in result.stderr
    assert result.exit_code == 2


def test_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    result = invoke("report", "x")
    assert (result.exit_code, result.stderr) == (130, "\nstopped; nothing half-written stays\n")


def test_reader_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, BrokenPipeError())
    result = invoke("report", "x")
    assert (result.exit_code, result.output) == (141, "")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_not_enough_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fail_with(monkeypatch, error)
    result = invoke("report", "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: not enough memory")
    assert "--per_device_train_batch_size" in result.stderr


def test_disk_full_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, OSError(28, "No space left on device", "/x/y"))
    result = invoke("report", "x")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: /x/y: cannot write: No space left on device\n  try: free some space")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tunewell", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write: No space left on device")


def test_a_closed_pipe_is_quiet() -> None:
    code = "import os, subprocess, sys\nr, w = os.pipe(); os.close(r)\n"
    code += "p = subprocess.run([sys.executable, '-m', 'tunewell', '--help'], stdout=w, stderr=subprocess.PIPE)\n"
    code += "print(p.returncode, p.stderr)"
    assert python(code).stdout == "141 b''\n"


def test_third_parties_are_quiet_and_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def look(*_, **__):
        seen.update(os.environ)
        raise DataError("enough")

    monkeypatch.setattr(import_module("tunewell.run"), "load_run", look)
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    before = dict(os.environ)
    invoke("report", "x")
    assert seen["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert seen["TRANSFORMERS_VERBOSITY"] == "error"
    assert dict(os.environ) == before
    for args in (["report", "x", "--verbose"], ["--verbose", "report", "x"]):
        seen.clear()
        invoke(*args)
        assert "HF_HUB_DISABLE_PROGRESS_BARS" not in seen
    assert dict(os.environ) == before


def test_completion() -> None:
    environment = {**os.environ, "_TUNEWELL_COMPLETE": "bash_complete", "COMP_WORDS": "tunewell ", "COMP_CWORD": "1"}
    done = python("from tunewell.cli import main; main()", env=environment)
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == ALL
    environment |= {"COMP_WORDS": "tunewell run --task text", "COMP_CWORD": "3"}
    done = python("from tunewell.cli import main; main()", env=environment)
    assert done.stdout == "plain,text-classification\nplain,text-regression\nplain,text-generation\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["export", "runs/a", "-o", ""], "--output"),
        (["models", "--path", ""], "--path"),
        (["serve", ""], "RUNS"),
        (["serve", "runs/a", " "], "RUNS"),
        (["ui", ""], "FOLDER"),
        (["predict", "", "data.csv"], "RUN"),
        (["check", ""], "DATA"),
        (["merge", "runs/a", "runs/b", "--output_dir", ""], "--output_dir"),
        (["run", "--train", "reviews.csv", "--output_dir", ""], "--output_dir"),
    ],
)
def test_an_empty_name_is_not_the_folder_one_is_in(arguments, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"`{name}` is empty; expected a name" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_text_is_a_text():
    """It is told by what reads it, and not by the command line."""
    result = CliRunner().invoke(app, ["explain", "no/such/run", ""])
    assert "is empty; expected a name" not in result.stderr
