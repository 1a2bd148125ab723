"""Sequences that cannot be: exit code 2, words that help, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def begin(here: Path, tiny_model: Path, make_reviews, save_csv):
    """Write sequence.yaml with three good tasks and return a function that changes keys of it or of a task."""
    tasks = []
    for seed, name in enumerate(("first", "second", "third")):
        path = save_csv(here / f"{name}.csv", make_reviews(40, seed=seed))
        tasks.append({"name": name, "train": path.name, "text": "text", "label": "label"})
    values: dict[str, Any] = {
        "strategy": "plain", "output_dir": "runs/x", "model": str(tiny_model), "probes": ["none"], "max_steps": 1,
        "unseen": "none", "bf16": False, "threads": 1, "tasks": tasks,
    }  # fmt: skip

    def write(number: int | None = None, **changes: Any) -> str:
        place = values if number is None else values["tasks"][number]
        place.update(changes)
        for key in [k for k, v in place.items() if v is None]:
            del place[key]
        (here / "sequence.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return "sequence.yaml"

    return write


def test_no_tasks(begin, refused):
    refused("sequence", begin(tasks=[]), says=("`tasks` is empty", "one or more tasks"))
    refused("sequence", begin(tasks=None), says="`tasks` is missing")


def test_two_tasks_with_one_name(begin, refused):
    refused("sequence", begin(1, name="first"), says="two tasks are called `first`")


def test_a_file_missing_in_the_third_task_is_found_first(begin, refused):
    refused("sequence", begin(2, train="thrid.csv"), says=("task third: thrid.csv: no such file", "third.csv"))


def test_a_label_column_that_is_not_there(begin, refused):
    refused("sequence", begin(1, label="lable"), says=("task second:", "lable", "label"))


def test_an_unknown_strategy(begin, refused):
    refused("sequence", begin(strategy="replai"), says=("unknown strategy `replai`", "did you mean `replay`"))


def test_all_mistakes_at_once(begin, refused):
    begin(0, lable="x")
    begin(1, name="first")
    says = (
        "mistakes:",
        "unknown key `memry`; did you mean `memory`", "`learning_rate: fast`", "two tasks are called `first`",
        "task 1 (first): unknown key `lable`; did you mean `label`", "`train` belongs to each of the `tasks`",
        "`agem` needs stored rows",
    )  # fmt: skip
    refused("sequence", begin(memry=1, learning_rate="fast", train="a.csv", strategy="agem", memory=0), says=says)


def test_broken_files_of_two_tasks_are_told_together(begin, refused):
    begin(0, train="nowhere.csv")
    refused("sequence", begin(2, label="stars"), says=("2 mistakes", "task first:", "task third:"))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("memory", -1, "`memory: -1`: expected a share"),
        ("memory", 1.5, "`memory: 1.5`: expected a share"),
        ("memory_choice", "best", "expected one of reservoir, balanced, herding"),
        ("lwf_temperature", 0, "`lwf_temperature: 0`: expected a number above 0"),
        ("strategy", "joint,lwf", "`joint` stands alone"),
        ("keep_worst", 0.9, "`keep_worst` is not for a sequence"),
        ("report_to", ["wandbx"], "unknown tracker `wandbx`"),
        ("tasks", "a.csv", "`tasks` is a str"),
    ],
)
def test_keys(begin, refused, key, value, says):
    refused("sequence", begin(**{key: value}), says=says)


def test_no_such_sequence_file(refused):
    refused("sequence", "none.yaml", says=("none.yaml: no such file", "a sequence in YAML"))


def test_another_head(begin, refused, here, make_reviews, save_csv):
    begin(1, head="frist")
    refused("sequence", begin(), says=("`head: frist`", "expected an earlier task (first)"))
    save_csv(here / "second.csv", make_reviews(40, ("neutral", "positive")))
    refused("sequence", begin(1, head="first"), says=("answers with other labels", "neutral, positive"))


def test_scores_are_no_classes(begin, refused, here, save_csv):
    save_csv(here / "second.csv", [(f"a text {i}", str(i / 7)) for i in range(40)])
    refused("sequence", begin(), says="task second:")


def test_the_base_model_is_gone(begin, refused, here, tiny_model):
    refused("sequence", begin(model="./nothing"), says=("no such model folder", "./nothing"))


def test_other_settings_in_a_folder_that_is_half_done(begin, here, tunewell, monkeypatch):
    import tunewell.sequence.work as work

    whole, calls = work.Work.learn, []

    def stopping(self, i):
        calls.append(i)
        if i == 1 and len(calls) == 2:
            raise KeyboardInterrupt
        whole(self, i)

    monkeypatch.setattr(work.Work, "learn", stopping)
    stopped = tunewell("sequence", begin())
    assert stopped.exit_code == 130
    assert "goes on from here" in stopped.stderr

    def told(*words: str) -> None:
        result = tunewell("sequence", "sequence.yaml")
        assert result.exit_code == 2, result.output
        for word in (*words, "overwrite_output_dir", "with other settings"):
            assert word in result.stderr

    begin(learning_rate=0.001)
    told("learning_rate: None → 0.001")
    begin(learning_rate=None)
    begin(1, name="other")
    told("task 2 (other): name")
    begin(1, name="second")
    path = here / "first.csv"
    rows = path.read_bytes()
    path.write_bytes(rows + b"one more row,positive\r\n")
    told("task 1 (first): its rows are others")
    path.write_bytes(rows)
    done = tunewell("sequence", "sequence.yaml")
    assert done.exit_code == 0, done.output
    assert "[first] done already" in done.stderr

    # what is refused around a finished one
    for args, words in (
        (("predict", "runs/x", "first.csv"), "this model has several tasks, and none is named"),
        (("predict", "runs/x", "first.csv", "--task_name", "frist"), "did you mean `first`"),
        (("continue", "runs/x", "--train", "first.csv", "--name", "first"), "two tasks are called `first`"),
        (("continue", "runs/x", "--train", "first.csv", "--learning_rate", "1"), "the settings of a sequence stand"),
        (("continue", "runs/x"), "`train` is missing"),
        (("continue", "runs/none", "--train", "first.csv"), "is neither a finished run nor a sequence"),
    ):
        result = tunewell(*args)
        assert result.exit_code == 2, (args, result.output)
        assert words in result.stderr
    labelled = tunewell("predict", "runs/x", "first.csv", "--task_name", "third")
    assert labelled.exit_code == 0
    assert labelled.stdout.splitlines()[0] == "text,label,prediction,p_negative,p_positive"


def test_a_folder_that_is_taken(begin, here, tunewell, tiny_csv):
    folder = here / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("train: a.csv\n", encoding="utf-8")
    result = tunewell("sequence", begin())
    assert result.exit_code == 2
    assert "holds a run, not a sequence" in result.stderr
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "letter.txt").write_text("dear", encoding="utf-8")
    result = tunewell("sequence", begin())
    assert result.exit_code == 2
    assert "holds other things than a run" in result.stderr


def test_a_locked_folder(begin, here, tunewell):
    from tunewell.folder import RunFolder

    with RunFolder(here / "runs" / "x") as folder:
        folder.mark("begin", "x")
        result = tunewell("sequence", begin())
    assert result.exit_code == 2
    assert "another tunewell process is working in this folder" in result.stderr
