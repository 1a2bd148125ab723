"""Whole sequences on the tiny model: what they leave, stopped and resumed, continued, with stored rows or without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tunewell.errors import RecipeError, RunFolderError
from tunewell.results import Training
from tunewell.sequence.extend import continue_run
from tunewell.sequence.run import load_sequence


class StopError(Exception):
    """What ends a sequence in the middle."""


@pytest.fixture
def stop_at(monkeypatch):
    """Ends tuning at a step of a task, as a kill would."""
    from tunewell.train.trainer import TunewellTrainer

    whole = TunewellTrainer.training_step

    def arrange(task: int, step: int) -> None:
        def spoilt(self, *args, **kwargs):
            if self.state.global_step == step and f"/{task:02d}-" in self.args.output_dir:
                raise StopError
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(TunewellTrainer, "training_step", spoilt)

    return arrange


def without_times(summary) -> dict:
    values = summary.model_dump()
    values.pop("seconds")
    values.pop("peak_memory_mb")
    for row in values["rows"]:
        row.pop("seconds")
    return values


def test_auto_leaves_what_it_promises(go, tasks):
    done = go()
    s = done.summary
    assert s.tasks == ("mood", "tone", "kind")
    assert s.strategy == ("auto",)
    matrix = np.array(s.matrix)
    assert matrix.shape == (3, 3)
    assert ((matrix >= 0) & (matrix <= 1)).all()
    assert s.average_accuracy == pytest.approx(matrix[2].mean())
    assert s.backward_transfer == pytest.approx(((matrix[2] - matrix.diagonal())[:2]).mean())
    assert s.forward_transfer == pytest.approx(np.mean([matrix[j - 1][j] - s.base[j] for j in (1, 2)]))
    assert s.unseen == "linear probe on the frozen body"
    assert s.memory["rows"] == 18  # 10 % of 54 training rows, rounded up, three times
    on_disk = json.loads((done.dir / "summary.json").read_text(encoding="utf-8"))
    for key in ("matrix", "average_accuracy", "backward_transfer", "forward_transfer", "forgetting"):
        assert key in on_disk
    stored = [json.loads(x) for x in (done.dir / "memory" / "01-mood.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = Path(tasks[0]["train"]).read_text(encoding="utf-8")
    assert len(stored) == 6
    assert all(row["text"] in texts for row in stored)
    page = (done.dir / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http" not in page.split("</style>")[1].split("<pre>")[0]

    # the model: a plain body, and a head file for each task
    body = AutoModel.from_pretrained(done.model_path)
    assert sorted(p.stem for p in (done.model_path / "heads").iterdir()) == ["kind", "mood", "tone"]
    head = load_file(str(done.model_path / "heads" / "kind.safetensors"))
    assert head["classifier.weight"].shape == (3, body.config.hidden_size)

    # a task's model gives the accuracy of the matrix, by tunewell and by plain Transformers
    import csv

    with Path(tasks[0]["test"]).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answers = done.predict([r["text"] for r in rows], task_name="mood")
    assert np.mean([a == r["label"] for a, r in zip(answers, rows, strict=True)]) == pytest.approx(matrix[2][0])
    folder = done.export("mood") / "model"
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = plain(
            **tokenizer([r["text"] for r in rows], padding=True, truncation=True, return_tensors="pt")
        ).logits
    assert [plain.config.id2label[int(i)] for i in logits.argmax(1)] == answers


@pytest.mark.parametrize(
    "strategy", ["auto", "o_lora", *(pytest.param(n, marks=pytest.mark.slow) for n in ("agem", "online_ewc"))]
)
def test_killed_between_and_inside_tasks_gives_the_same_matrix(go, tmp_path, stop_at, strategy):
    options = {"strategy": strategy, "evals_per_epoch": 2, "unseen": "none"}
    whole = go(output_dir=str(tmp_path / "whole"), **options)
    for task, step in ((2, 1), (3, 5)):  # before the first checkpoint of a task (so between two), and inside
        stop_at(task, step)
        with pytest.raises(StopError):
            go(output_dir=str(tmp_path / "parts"), **options)
    stop_at(9, 0)
    assert (tmp_path / "parts" / "tasks" / "02-tone" / "row.json").is_file()
    assert any((tmp_path / "parts" / "tasks" / "03-kind" / "train" / "checkpoints").iterdir())
    parts = go(output_dir=str(tmp_path / "parts"), **options)
    assert without_times(parts.summary) == without_times(whole.summary)
    for path in (whole.model_path / "heads").iterdir():
        one, two = load_file(str(path)), load_file(str(parts.model_path / "heads" / path.name))
        assert all(torch.equal(one[k], two[k]) for k in one)
    one, two = (load_file(str(d.model_path / "model.safetensors")) for d in (whole, parts))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_finished_sequence_is_not_repeated(go, monkeypatch):
    first = go(strategy="plain", unseen="none").summary
    monkeypatch.setattr("tunewell.stages.tune.tune", lambda job: pytest.fail("tuned again"))
    assert go(strategy="plain", unseen="none").summary == first


@pytest.mark.parametrize(
    "strategy", ["plain", "distill", "average", "replay", "der,average", "lwf,features", "joint", "separate"]
)
@pytest.mark.slow
def test_every_strategy_runs_to_the_end(go, strategy):
    done = go(strategy=strategy)
    s = done.summary
    assert s.average_accuracy is not None
    assert len(s.matrix) == (1 if strategy in ("joint", "separate") else 3)
    assert len(done.predict(["good day", "bad"], task_name="mood")) == 2
    assert (s.rows[-1].alpha is not None) == ("average" in strategy)


def test_strength_zero_is_plain(go, tmp_path):
    plain = go(strategy="plain", unseen="none", output_dir=str(tmp_path / "a"))
    zero = go(strategy="features", features_weight=0, unseen="none", output_dir=str(tmp_path / "b"))
    assert zero.summary.matrix == plain.summary.matrix
    one, two = (load_file(str(d.model_path / "model.safetensors")) for d in (plain, zero))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_memory_zero_stores_nothing(go):
    done = go(memory=0, unseen="none")
    assert done.summary.memory["rows"] == 0
    assert not (done.dir / "memory").exists()


def test_a_number_of_rows_is_shared_by_all_tasks(go):
    done = go(strategy="replay", memory=30, memory_choice="herding", unseen="none")
    lines = [len(p.read_text(encoding="utf-8").splitlines()) for p in sorted((done.dir / "memory").iterdir())]
    assert lines == [10, 10, 10]


def test_continue_a_sequence(go, tasks, keys):
    done = go(tasks=tasks[:2], strategy="lwf")
    before = done.summary.matrix
    grown = continue_run(
        done.dir, train=tasks[2]["train"], test=tasks[2]["test"], name="kind", echo=lambda line: None, progress=False
    )
    s = grown.summary
    assert s.tasks == ("mood", "tone", "kind")
    assert [list(row[:2]) for row in s.matrix[:2]] == [list(row) for row in before]
    assert s.matrix[0][2] is None  # measured before the task was there
    assert s.forward_transfer is None
    again = continue_run(  # the same command changes nothing
        done.dir, train=tasks[2]["train"], test=tasks[2]["test"], name="kind", echo=lambda line: None, progress=False
    )
    assert again.summary.tasks == s.tasks


def test_continue_a_run_with_the_same_head(keys, tasks, tmp_path, make_reviews, save_csv):
    import tunewell

    standing = {k: keys[k] for k in ("model", "probes", "bf16", "threads", "learning_rate", "num_train_epochs")}
    run = tunewell.run(
        train=tasks[0]["train"], test=tasks[0]["test"], output_dir=str(tmp_path / "run"), **standing,
        echo=lambda line: None, progress=False,
    )  # fmt: skip
    more = save_csv(tmp_path / "more.csv", make_reviews(60, ("negative", "positive"), seed=5))
    grown = continue_run(
        run.dir, train=str(more), head="run", strategy="replay", memory=0.1, unseen="none",
        echo=lambda line: None, progress=False,
    )  # fmt: skip
    s = grown.summary
    assert grown.dir == Path(f"{run.dir}-continued")
    assert s.tasks == ("run", "more")
    assert s.matrix[0][0] == pytest.approx(run.metrics["accuracy"].value)  # the run's test rows have become a probe
    assert [p.stem for p in (grown.model_path / "heads").iterdir()] == ["run"]  # one head for both
    assert grown.predict(["bad"], task_name="more") == grown.predict(["bad"], task_name="run")


def test_only_sequences_are_opened(tmp_path):
    with pytest.raises(RunFolderError, match="is not a finished sequence"):
        load_sequence(tmp_path)


def test_joint_with_a_temperature(go, tasks, tmp_path):
    """A task of few rows takes part in few steps: other weights than with all of them at every step."""
    small = Path(tasks[1]["train"])
    small.write_text("\n".join(small.read_text(encoding="utf-8").splitlines()[:21]) + "\n", encoding="utf-8")
    weights, rows = [], []
    for name, temperature in (("all", None), ("rare", 0.2)):
        done = go(
            strategy="joint", unseen="none", num_train_epochs=1, joint_temperature=temperature,
            output_dir=str(tmp_path / name),
        )  # fmt: skip
        weights.append(load_file(str(done.model_path / "model.safetensors"))["encoder.layer.0.output.dense.weight"])
        training = Training.load(tmp_path / name / "tasks" / "01-joint" / "train" / "training.json")
        rows.append(training.examples / training.steps)
    assert 4 < rows[0] <= 16 / 3 < rows[1]  # of the task with the most rows: a step is shared by three, or fewer
    assert not torch.allclose(*weights)


@pytest.mark.parametrize("afresh", [False, True])
def test_separate_tasks_side_by_side_are_the_same_bits(go, tmp_path, monkeypatch, afresh):
    """Workers tune ahead; what is measured afterwards is the same, and nothing is tuned twice."""
    alone = go(strategy="separate", num_train_epochs=1, output_dir=str(tmp_path / "alone"))
    said: list[str] = []
    import tunewell.stages.tune as stage

    here: list[str] = []  # tuned by this process, and not by a worker
    tuned_in = stage.tuned_in
    monkeypatch.setattr(stage, "tuned_in", lambda job, place: (here.append(str(place)), tuned_in(job, place))[1])
    over = {"overwrite_output_dir": True} if afresh else {}
    many = go(
        strategy="separate", num_train_epochs=1, output_dir=str(tmp_path / "many"), jobs=2, echo=said.append, **over
    )
    assert here == []
    assert sum("tuned in" in line for line in said) == 3 and not any("] tune: " in line for line in said)
    assert many.summary.matrix == alone.summary.matrix
    weights = "models/{}/model/model.safetensors"
    for task in many.summary.tasks:
        assert (many.dir / weights.format(task)).read_bytes() == (alone.dir / weights.format(task)).read_bytes()


def test_tasks_that_build_on_each_other_take_no_workers(go, tmp_path):
    with pytest.raises(RecipeError, match="--jobs 2: `replay` learns one task after the other"):
        go(strategy="replay", output_dir=str(tmp_path / "no"), jobs=2)
    assert not (tmp_path / "no").exists()
