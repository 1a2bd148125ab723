"""The YAML of a sequence: what is taken, what is refused, and that it comes back the same."""

from __future__ import annotations

import pytest

from tunewell.errors import RecipeError
from tunewell.sequence.spec import load_spec

TASKS = [{"name": "a", "train": "a.csv", "label": "stars"}, {"name": "b", "train": "b.csv", "test": "b_test.csv"}]


def test_defaults():
    spec = load_spec({"tasks": TASKS})
    assert spec.strategy == ("auto",)
    assert spec.output_dir == "runs/sequence"
    assert spec.own["memory"] == 0.01
    assert [t.head for t in spec.tasks] == ["a", "b"]
    recipe = spec.recipe_of(spec.tasks[0])
    assert (recipe.train, recipe.label, recipe.metric, recipe.task) == (
        "a.csv", ["stars"], "accuracy", "text-classification"
    )  # fmt: skip
    assert recipe.strategies == ("plain",)
    both = load_spec({"tasks": TASKS, "strategy": "distill,lwf"})
    assert both.recipe_of(both.tasks[0]).strategies == ("distill",)  # what is taken of a single run


def test_a_file_comes_back_the_same(tmp_path):
    path = tmp_path / "two tasks.yaml"
    path.write_text(
        "strategy: [replay, lwf]\nmemory: 200\nlearning_rate: 1.0e-4\nkeep: 0.9\naverage_alphas: [0.5, 1.0]\n"
        "tasks:\n- {name: a, train: a.csv}\n- {name: b, train: b.csv, head: a}\n",
        encoding="utf-8",
    )
    spec = load_spec(path)
    assert spec.output_dir == "runs/two tasks"
    assert spec.strategy == ("replay", "lwf")
    assert spec.plan.average  # a budget is kept by averages
    again = tmp_path / "again.yaml"
    again.write_text(spec.to_yaml(), encoding="utf-8")
    assert load_spec(again) == spec
    assert load_spec(again).settings() == spec.settings()


def test_typed_keys_are_what_the_files_are():
    typed = load_spec({"tasks": TASKS}, seed="7", learning_rate="1e-4", strategy="replay,lwf", probes=["none"])
    written = load_spec(
        {"tasks": TASKS, "seed": 7, "learning_rate": 1e-4, "strategy": ["replay", "lwf"], "probes": "none"}
    )
    assert typed == written


def test_settings_hold_all_that_decides_and_no_more():
    one = load_spec({"tasks": TASKS, "lang": "zh", "output_dir": "x", "overwrite_output_dir": True})
    two = load_spec({"tasks": TASKS})
    assert one.settings() == two.settings()
    assert load_spec({"tasks": TASKS, "weight_decay": 0.5}).settings() != two.settings()
    assert load_spec({"tasks": TASKS, "memory": 0}).settings() != two.settings()


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        ([], "`tasks` is empty"),
        ("a", "`tasks` is a str"),
        (["a"], "task 1: expected keys such as `name`"),
        ([{"train": "a.csv"}], "task 1: `name` is missing"),
        ([{"name": "a/b", "train": "a.csv"}], "expected letters, digits"),
        ([{"name": "a"}], r"task 1 \(a\): `train` is missing"),
        ([TASKS[0], TASKS[0]], "two tasks are called `a`"),
        ([TASKS[0], {"name": "b", "run": "runs/b"}], "only the first task can be a finished `run`"),
        ([{"name": "a", "run": "runs/b", "train": "a.csv"}], "name `run` or `train`, not both"),
        ([{"name": "a", "train": "a.csv", "head": "b"}], "expected an earlier task"),
        ([{"name": "a", "train": ["a.csv"]}], "expected text"),
        ([{"name": "a", "tran": "a.csv"}], "unknown key `tran`; did you mean `train`"),
    ],
)
def test_tasks_that_cannot_be(tasks, says):
    with pytest.raises(RecipeError, match=says):
        load_spec({"tasks": tasks})


def test_all_mistakes_are_told_together():
    with pytest.raises(RecipeError) as caught:
        load_spec({"tasks": [], "memry": 1, "seed": -1, "strategy": "ewcc", "text": "x", "memory_choice": "herdng"})
    told = str(caught.value)
    assert "6 mistakes:" in told
    for words in ("`tasks` is empty", "did you mean `memory`", "`seed: -1`", "`ewcc`", "`text` belongs", "`herdng`"):
        assert words in told.replace("`memory_choice: herdng`", "`herdng`")


def test_a_head_that_goes_on_twice_is_the_first_ones():
    third = {"name": "c", "train": "c.csv", "head": "b"}
    spec = load_spec({"tasks": [TASKS[0], {**TASKS[1], "head": "a"}, third]})
    assert [t.head for t in spec.tasks] == ["a", "a", "a"]
    with pytest.raises(RecipeError, match="`head` is not for `joint`"):
        load_spec({"tasks": [TASKS[0], {**TASKS[1], "head": "a"}], "strategy": "joint"})


def test_a_temperature_is_for_joint():
    assert load_spec({"tasks": TASKS, "strategy": "joint", "joint_temperature": 2}).own["joint_temperature"] == 2
    with pytest.raises(RecipeError, match="`joint_temperature: 0`: expected a number above 0"):
        load_spec({"tasks": TASKS, "strategy": "joint", "joint_temperature": 0})
    with pytest.raises(RecipeError, match="`joint_temperature` is for `strategy: joint`"):
        load_spec({"tasks": TASKS, "strategy": "plain", "joint_temperature": 2})
