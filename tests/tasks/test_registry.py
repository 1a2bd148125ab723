"""Which task a recipe or a file is for; defaults that a task sets; how mistakes are told on the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.init_recipe import infer
from tunewell.recipe import Recipe
from tunewell.stages.job import with_defaults
from tunewell.stages.prepare import choose_task
from tunewell.tasks import TASKS, task_of
from tunewell.tasks.base import Task


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_the_whole_interface(name):
    task = task_of(name)
    wanted = {m for m in vars(Task) if not m.startswith("_")} | set(Task.__annotations__)
    assert not [m for m in wanted if not hasattr(task, m)]
    assert task.name == name
    Recipe(**{"task": name, **task.defaults})  # its defaults are valid keys


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}, "question-answering"),
        ({"question": "q", "context": "c", "answer": "c", "answer_start": 0}, "question-answering"),
        ({"messages": []}, "text-generation"),
        ({"conversations": []}, "text-generation"),
        ({"prompt": "p", "completion": "c"}, "text-generation"),
        ({"instruction": "i", "input": "", "output": "o"}, "text-generation"),
        ({"source": "s", "target": "t"}, "translation"),
        ({"text": "t", "label": "l"}, "text-classification"),
        ({"question": "q", "label": "l"}, "text-classification"),
        ({"text": "t", "source": "s", "target": "t"}, "text-classification"),
    ],
)
def test_columns_tell_the_task(row, task, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert choose_task(Recipe(train=str(path))) == task


@pytest.mark.parametrize(
    ("keys", "task"),
    [
        ({"source": "a", "target": "b"}, "translation"),
        ({"messages": "m"}, "text-generation"),
        ({"question": "q"}, "question-answering"),
        ({"task": "text-generation", "source": "a", "target": "b"}, "text-generation"),
        ({"text": "a"}, "text-classification"),
    ],
)
def test_keys_tell_the_task(keys, task):
    assert choose_task(Recipe(**keys)) == task


def test_defaults_of_a_task_give_way_to_the_user():
    generation = task_of("text-generation")
    assert with_defaults(Recipe(), generation).model == "SmolLM2-135M-Instruct"
    assert with_defaults(Recipe(model="x"), generation).model == "x"
    assert with_defaults(Recipe(keep=0.9), generation).strategies == ("average",)
    assert with_defaults(Recipe(keep=0.9, strategy=["plain"]), generation).strategies == ("plain",)
    assert with_defaults(Recipe(keep=0.9), task_of("text-classification")).strategies == ("distill", "average")


def test_init_names_the_task(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "p", "completion": "c"}\n', encoding="utf-8")
    values, notices = infer(str(path))
    assert values == {"train": str(path), "task": "text-generation"}
    assert "its columns are those of text-generation" in notices


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ('{"messages": [{"role": "usr", "content": "x"}]}', [], "unknown role 'usr'"),
        ('{"messages": 3}', ["--task", "text-generation"], "is not a list of messages"),
        ('{"text": "x"}', ["--task", "text-generation"], "no format of instructions fits its columns"),
        ('{"text": "x"}', ["--task", "question-answering"], "cannot tell which column holds the question"),
        ('{"text": "x"}', ["--task", "translation"], "cannot tell which column holds the source"),
        ('{"en": "x", "de": "y"}', ["--source", "en", "--target", "fr"], "no column `fr`"),
        ('{"source": "x", "target": ""}', [], "no row is left for train (1 no target)"),
        ('{"prompt": "x", "completion": ""}', [], "no row is left for train (1 no answer of the assistant)"),
        ('{"question": "x", "context": "c", "answers": "d"}', [], "1 answer not in the context"),
        ('{"question": "x", "context": "c", "answers": {"text": ["c"], "answer_start": [1, 2]}}', [],
         "1 answers but 2 offsets"),
        ('{"paragraphs": [{"qas": 3, "context": "c"}]}', [], "is not SQuAD JSON"),
        ('{"prompt": "x", "completion": "y"}', ["--metric", "loss"], "lower is better"),
        ('{"source": "x", "target": "y"}', ["--metric", "f1"], "unknown metric `f1` for translation"),
        ('{"question": "x", "context": "c", "answers": "c"}', ["--metric", "bleu"], "unknown metric `bleu`"),
        ('{"source": "x", "target": "y"}', ["--overlength", "cut"], "overlength"),
        ('{"source": "x", "target": "y"}', ["--num_beams", "0"], "num_beams"),
        ('{"source": "x", "target": "y"}', ["--max_new_tokens", "0"], "max_new_tokens"),
        ('{"source": "x", "target": "y"}', ["--doc_stride", "-1"], "doc_stride"),
        ('{"source": "x", "target": "y"}', ["--task", "translate"], "task"),
    ],
)  # fmt: skip
def test_mistakes_end_with_two_and_no_folder(text, arguments, message, tmp_path):
    path, out = tmp_path / "data.jsonl", tmp_path / "run"
    path.write_text(text + "\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["run", "--train", str(path), "--output_dir", str(out), *arguments])
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr and not out.exists()
