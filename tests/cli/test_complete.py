"""What the shell offers on <TAB>: run folders, files, folders, names of packaged models and data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from tunewell.cli import COMMANDS, app
from tunewell.cli.complete import MOST, offer_of

SHELLS = (BashComplete, ZshComplete, FishComplete)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs at several depths, a model folder and files."""
    for run in ("runs/reviews", "runs/2027/topics", "runs/reviews/inner"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "summary.json").write_text("{}")
    (tmp_path / "runs/unfinished").mkdir()
    (tmp_path / "special").mkdir()
    (tmp_path / "special" / "config.json").write_text("{}")
    (tmp_path / "tweets.csv").write_text("text,label\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*words: str, shell: type[ShellComplete] = ZshComplete) -> list[tuple[str, str]]:
    """Kind and value of what is offered for the last word."""
    found = shell(app, {}, "tunewell", "_TUNEWELL_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in found]


@pytest.mark.parametrize("shell", SHELLS)
def test_run_folders_at_any_depth_and_not_what_lies_in_them(shell: type[ShellComplete]) -> None:
    found = [("plain", "runs/reviews"), ("plain", "runs/2027/topics")]
    assert offered("export", "ru", shell=shell) == found
    assert offered("explain", "runs/re", shell=shell) == found[:1]
    assert offered("merge", "runs/reviews", "runs/2", shell=shell) == found[1:]
    assert offered("select", "tweets.csv", "--run", "runs/re", shell=shell) == found[:1]


def test_where_no_run_is_the_shell_offers_folders() -> None:
    assert offered("export", "xyz") == [("dir", "xyz")]
    assert offered("export", "runs/u") == [("dir", "runs/u")]


def test_names_of_runs_that_are_served_stay_before_them() -> None:
    assert offered("serve", "stars=runs/re") == [("plain", "stars=runs/reviews")]


def test_packaged_models_and_folders_with_a_model() -> None:
    assert offered("run", "--model", "sp") == [("plain", "splade-tiny"), ("plain", "special")]
    assert offered("run", "--model=all") == [("plain", "all-MiniLM-L6-v2")]
    assert ("plain", "splade-tiny") in offered("rank", "tweets.csv", "--models", "")
    assert offered("run", "--model", "xyz") == [("dir", "xyz")]
    assert offered("probe", "runs/re") == [("plain", "runs/reviews")]
    assert offered("probe", "all-MiniLM-L6-v2", "spl") == [("plain", "splade-tiny")]


def test_files_are_the_shells_and_packaged_data_stand_in_where_there_is_none() -> None:
    assert offered("check", "tw") == [("file", "tw")]
    assert offered("predict", "runs/reviews", "") == [("file", "")]
    assert offered("explain", "runs/reviews", "--data", "t") == [("file", "t")]
    assert offered("run", "rec") == [("file", "rec")]
    from tunewell.asset_table import ASSETS

    names = [name for name, asset in ASSETS.items() if asset.kind == "data"]
    assert names
    assert ("plain", names[0]) in offered("run", "--train", names[0][:4])
    assert offered("prune", "runs/re") == [("plain", "runs/reviews")]
    assert offered("prune", "tw") == [("file", "tw")]


def test_what_click_knows_is_as_it_was() -> None:
    assert ("plain", "export") in offered("ex")
    assert offered("export", "--js") == [("plain", "--json")]
    assert offered("report", "runs/reviews", "--lang", "z") == [("plain", "zh")]
    assert ("plain", "text-classification") in offered("run", "--task", "text-c")


def test_a_line_that_is_not_right_yet_is_no_error() -> None:
    assert offered("rnu", "x") == []
    assert ("plain", "--model") in offered("run", "--bf16", "true", "--mod")


def test_many_runs_are_cut_and_hidden_folders_left_out(place: Path) -> None:
    for i in range(MOST + 20):
        (place / "many" / f"r{i}").mkdir(parents=True)
        (place / "many" / f"r{i}" / "summary.json").touch()
    (place / ".hidden").mkdir()
    (place / ".hidden" / "summary.json").touch()
    assert len(offered("export", "many/")) == MOST
    assert all(not value.startswith(".hidden") for _, value in offered("export", ""))
    assert offered("export", ".hid") == [("plain", ".hidden")]


def test_home_is_known_and_stays_as_typed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert offered("export", "~/runs/re") == [("plain", "~/runs/reviews")]


def test_every_argument_and_path_is_completed() -> None:
    free = {"texts", "text"}  # whatever one likes to ask
    for commands in COMMANDS.values():
        for name, (module, _) in commands.items():
            for param in import_module(module).command.params:
                if param.name in free:
                    continue
                if isinstance(param, click.Argument) or param.metavar in ("FILE", "DIR", "RUN"):
                    ends = param.type.shell_complete(click.Context(app), param, "zz")
                    assert ends or not isinstance(param.type, click.types.StringParamType), (name, param.name)
                    assert ends, (name, param.name)


def test_an_option_with_choices_keeps_them() -> None:
    assert offer_of("x", click.Option(["--model"], type=click.Choice(["a"]))) is None
    assert offer_of("x", click.Option(["--rows"], type=int)) is None


@pytest.mark.skipif(not shutil.which("bash") or os.name != "posix", reason="bash")
def test_in_bash(place: Path) -> None:
    """The real shell, with the function that `_TUNEWELL_COMPLETE=bash_source` writes."""
    folder = place / "bin"
    folder.mkdir()
    command = folder / "tunewell"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tunewell "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(_TUNEWELL_COMPLETE=bash_source tunewell)"\n'
        "COMP_WORDS=(tunewell export ru) COMP_CWORD=2\n_tunewell_completion tunewell\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=place)
    assert done.stdout.split() == ["runs/reviews", "runs/2027/topics"], done.stderr
