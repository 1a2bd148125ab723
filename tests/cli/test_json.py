"""`--json`: every command takes it; stdout is JSON and nothing else, and so is an error on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tunewell.cli import COMMANDS, app
from tunewell.cli.as_json import json_text
from tunewell.errors import DataError, GateError

KEYS = (
    "--num_train_epochs", "2", "--learning_rate", "2e-3", "--no-bf16", "--threads", "1", "--max_length", "32",
    "--probes", "none", "--general_samples", "32", "--seed", "3",
)  # fmt: skip


def invoke(*args: object, **options) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args], **options)


def parsed(*args: object, code: int = 0, **options):
    """What a command prints with --json: stdout as a whole is one JSON document."""
    result = invoke(*args, "--json", **options)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", [name for commands in COMMANDS.values() for name in commands])
def test_every_command_has_json(name: str) -> None:
    module = next(commands[name][0] for commands in COMMANDS.values() if name in commands)
    flags = {o: p for p in import_module(module).command.params if isinstance(p, click.Option) for o in p.opts}
    assert flags["--json"].is_flag, name
    assert flags["--json"].name == "as_json"
    assert "JSON" in flags["--json"].help


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model, make_reviews, make_moods, save_csv) -> Path:
    """A folder with data, general text, and two runs of the tiny model."""
    folder = tmp_path_factory.mktemp("json")
    save_csv(folder / "reviews.csv", make_reviews(120))
    save_csv(folder / "moods.csv", make_moods(160))
    (folder / "general.txt").write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
    for name, rate in (("run", "2e-3"), ("other", "1e-3")):
        done = invoke(*line(folder, tiny_model), "--output_dir", folder / name, "--learning_rate", rate, "--quiet")
        assert done.exit_code == 0, done.output
    return folder


def line(folder: Path, model: Path, command: str = "run") -> tuple[object, ...]:
    return (
        command, "--train", folder / "reviews.csv", "--model", model, "--text", "text", "--label", "label",
        "--probe_files", folder / "moods.csv", "--general_text", folder / "general.txt", "--strategy", "plain", *KEYS,
    )  # fmt: skip


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_run_prints_its_summary_and_folder(place: Path, tiny_model: Path) -> None:
    found = parsed(*line(place, tiny_model), "--output_dir", place / "run")
    run = place / "run"
    assert {k: found[k] for k in summary(run)} == summary(run)
    assert {k: v for k, v in found.items() if k not in summary(run)} == {
        "folder": str(run), "model_path": str(run / "model"), "report_path": str(run / "report.html"),
    }  # fmt: skip


def test_a_gate_that_is_not_met_is_told_on_stderr_after_the_summary(place: Path, monkeypatch) -> None:
    module = import_module("tunewell.run")
    finished = module.load_run(place / "run")
    finished.summary = finished.summary.model_copy(update={"kept": False})
    monkeypatch.setattr(module, "run", lambda *_, **__: finished)
    monkeypatch.setattr(module, "gate_error", lambda _: GateError("keep is not met", remedy="more data"))
    result = invoke("run", "--train", place / "reviews.csv", "--json")
    assert (result.exit_code, json.loads(result.stdout)["kept"]) == (3, False)
    told = json.loads(result.stderr.splitlines()[-1])
    assert (told["exit_code"], told["error"]["kind"], told["error"]["remedy"]) == (3, "GateError", "more data")


def test_tune_prints_training_choice_and_folder(place: Path, tiny_model: Path, tmp_path: Path) -> None:
    found = parsed(*line(place, tiny_model, "tune"), "--output_dir", tmp_path / "t")
    assert (found["folder"], found["model_path"]) == (str(tmp_path / "t"), str(tmp_path / "t" / "model"))
    assert (tmp_path / "t" / "model" / "model.safetensors").is_file()
    assert found["training"]["strategy"] == ["plain"]
    assert found["training"]["steps"] > 0
    assert sum(c["chosen"] for c in found["choice"]["candidates"]) == 1


def test_report_restore_and_merge(place: Path, tmp_path: Path) -> None:
    page = parsed("report", place / "run", "--lang", "zh")
    assert page == {"folder": str(place / "run"), "report_path": str(place / "run" / "report.html"), "lang": "zh"}
    restored = parsed("restore", place / "run", "--alpha", "0.5", "--output_dir", tmp_path / "half")
    assert restored["folder"] == str(tmp_path / "half")
    assert restored["test"] == summary(tmp_path / "half")["test"]
    merged = parsed("merge", place / "run", place / "other", "--output_dir", tmp_path / "soup")
    assert merged["folder"] == str(tmp_path / "soup")
    assert {k: merged[k] for k in summary(tmp_path / "soup")} == summary(tmp_path / "soup")


def test_init_says_what_it_inferred(place: Path, tmp_path: Path) -> None:
    found = parsed("init", place / "reviews.csv", "-o", tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").is_file()
    assert found["output"] == str(tmp_path / "recipe.yaml")
    assert (found["keys"]["train"], found["keys"]["text"]) == (str(place / "reviews.csv"), "text")
    assert found["notices"]


def test_select_and_augment_count_what_they_wrote(place: Path, tmp_path: Path) -> None:
    chosen = parsed("select", place / "reviews.csv", "--n", 5, "--method", "random", "-o", tmp_path / "next.csv")
    assert (chosen["rows"], chosen["method"], chosen["format"]) == (5, "random", "csv")
    assert len((tmp_path / "next.csv").read_text().splitlines()) == 6
    more = parsed("augment", place / "reviews.csv", "-o", tmp_path / "more.csv", "--operations", "swap")
    assert more["rows"] == 120
    assert len((tmp_path / "more.csv").read_text().splitlines()) == 1 + more["rows"] + more["copies"]


def test_predict_gives_rows_or_an_account_of_the_file(place: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text,id\na fine film,1\n,2\n", encoding="utf-8")
    rows = [json.loads(x) for x in invoke("predict", place / "run", tmp_path / "new.csv", "--json").stdout.splitlines()]
    assert [r["id"] for r in rows] == ["1", "2"]
    assert rows[0]["prediction"] in ("negative", "positive")
    assert rows[1]["prediction"] is None
    account = parsed("predict", place / "run", tmp_path / "new.csv", "-o", tmp_path / "out.csv")
    assert account.pop("seconds") > 0
    assert account == {
        "output": str(tmp_path / "out.csv"), "format": "csv", "rows": 2, "empty": 1,
        "columns": ["prediction", "p_negative", "p_positive"], "notices": [],
        "precision": "fp32", "read_again": 0,
    }  # fmt: skip
    assert (tmp_path / "out.csv").read_text().startswith("text,id,prediction,")


def test_sequence_and_continue(place: Path, tiny_model: Path, tmp_path: Path) -> None:
    shared = ("--model", tiny_model, "--num_train_epochs", "1", "--max_length", "32", "--no-bf16", "--probes", "none",
              "--memory", "0", "--strategy", "plain", "--threads", "1", "--unseen", "none")  # fmt: skip
    spec = tmp_path / "s.yaml"
    task = f"{{name: reviews, train: {place / 'reviews.csv'}, text: text, label: label}}"
    spec.write_text(f"output_dir: {tmp_path / 'seq'}\ntasks:\n  - {task}\n", encoding="utf-8")
    first = parsed("sequence", spec, *shared)
    assert (first["tasks"], first["folder"]) == (["reviews"], str(tmp_path / "seq"))
    second = parsed("continue", tmp_path / "seq", "--train", place / "moods.csv", "--name", "moods")
    assert second["tasks"] == ["reviews", "moods"]
    assert {k: second[k] for k in summary(tmp_path / "seq")} == summary(tmp_path / "seq")


@pytest.mark.parametrize("command", ["serve", "ui", "label"])
def test_one_line_with_the_address(command: str, place: Path) -> None:
    pytest.importorskip("uvicorn")
    file = {"serve": "run", "ui": "", "label": "reviews.csv"}[command]
    flags = ["--port", "0", "--json", *(["--no-browser"] if command != "serve" else [])]
    args = [sys.executable, "-m", "tunewell", command, str(place / file), *flags]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())  # the page of `ui` sets one
            with browser.open(said["url"], timeout=30) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
    assert rest == ""
    assert (
        set(said)
        == {"serve": {"url", "models"}, "ui": {"url", "folder"}, "label": {"url", "file", "rows", "labelled"}}[command]
    )
    if command == "label":
        assert (said["rows"], said["labelled"]) == (120, 120)


# ---------------------------------------------------------------- errors


def error_of(*args: str, **options) -> tuple[int, dict]:
    result = invoke(*args, **options)
    assert result.stdout == ""
    told = json.loads(result.stderr.splitlines()[-1])
    assert told["exit_code"] == result.exit_code
    return result.exit_code, told["error"]


def test_a_users_mistake_is_json_with_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_run(*_):
        raise DataError("no column `txt`", where="a.csv:3", expected="one of text, größe", remedy="name it")

    monkeypatch.setattr(import_module("tunewell.run"), "load_run", load_run)
    code, error = error_of("report", "x", "--json")
    assert code == 2
    assert error == {
        "kind": "DataError", "what": "no column `txt`", "where": "a.csv:3", "expected": "one of text, größe",
        "remedy": "name it",
    }  # fmt: skip
    plain = invoke("report", "x").stderr
    assert plain == "error: a.csv:3: no column `txt`\n  expected: one of text, größe\n  try: name it\n"


def test_a_command_line_that_cannot_be_read_too() -> None:
    code, error = error_of("run", "--json", "--modle", "x")
    assert (code, error["kind"], error["where"]) == (2, "UsageError", "tunewell run")
    assert error["what"] == "no such option `--modle`"
    assert "did you mean `--model`?" in error["remedy"]
    assert error_of("rnu", "--json")[1]["what"].startswith("no such command `rnu`")


@pytest.mark.parametrize(
    ("raised", "code", "kind"),
    [
        (GateError("keep is not met"), 3, "GateError"),
        (ZeroDivisionError("by zero"), 1, "InternalError"),
        (MemoryError(), 2, "LimitError"),
        (OSError(28, "full", "x.csv"), 2, "LimitError"),
        (KeyboardInterrupt(), 130, "StoppedError"),
    ],
)
def test_whatever_goes_wrong_is_json(monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, kind: str):
    def load_run(*_):
        raise raised

    monkeypatch.setattr(import_module("tunewell.run"), "load_run", load_run)
    assert error_of("report", "x", "--json")[0] == code
    assert error_of("report", "x", "--json")[1]["kind"] == kind


def test_a_text_that_looks_like_the_flag_is_no_flag(tmp_path: Path) -> None:
    result = invoke("explain", str(tmp_path / "none"), "--", "--json")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")


def test_json_text_holds_to_the_standard() -> None:
    value = {"nan": float("nan"), "inf": float("inf"), "path": Path("a/b"), "word": "größe", "pair": (1, 2.5)}
    assert json.loads(json_text(value), parse_constant=pytest.fail) == {
        "nan": None, "inf": None, "path": os.path.join("a", "b"), "word": "größe", "pair": [1, 2.5],
    }  # fmt: skip
    assert "\n" not in json_text(value, indent=None)
