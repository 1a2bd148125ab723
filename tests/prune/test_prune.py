"""`tunewell prune` on a data file and on a finished run: rows, columns, numbers, the page, mistakes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import RunFolderError
from tunewell.prune.run import prune
from tunewell.recipe_file import load_recipe
from tunewell.run import check_only
from tunewell.train.dynamics import Dynamics

OURS = ["row", "el2n", "forgetting", "confidence", "variability", "correctness"]
KEYS = {
    "bf16": False, "threads": 1, "learning_rate": 2e-3, "per_device_train_batch_size": 8, "metric": "accuracy",
}  # fmt: skip


def quiet(line):
    pass


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, make_reviews, save_csv):
    """A run that split its file itself; its rows with a column of the user's own."""
    folder = tmp_path_factory.mktemp("prune")
    rows = [(*row, str(i)) for i, row in enumerate(make_reviews(60), 1)]
    train = save_csv(folder / "reviews.csv", rows, header=("text", "label", "confidence"))
    run = tunewell.run(
        **KEYS, train=str(train), text="text", label="label", model=str(tiny_model), probes="none", explain=0,
        num_train_epochs=3, calibrate="none", monitor="off", output_dir=str(folder / "run"), echo=quiet,
        progress=False,
    )  # fmt: skip
    return run.dir, train


def test_a_finished_run_without_tuning(finished, tmp_path):
    run, train = finished
    out = tmp_path / "kept.csv"
    lines: list[str] = []
    done = prune(run, out, keep_share=0.5, method="hard", duplicates="keep", splits=True, echo=lines.append)
    assert not [line for line in lines if line.startswith("tune:")]
    kept, all_rows = read(out), read(train)
    members = json.loads((run / "split.json").read_text())["members"]
    n = len(members["train"])
    assert len(kept) == done.record.kept == round(n / 2)
    assert done.record.rows == n

    # the data's own column keeps its name, ours gets a number; the row is where it stands in the file
    assert list(kept[0]) == ["text", "label", "confidence", "row", "el2n", "forgetting", "confidence_2", *OURS[4:]]
    assert [int(r["row"]) for r in kept] == sorted(int(r["row"]) for r in kept)
    for r in kept:
        assert all_rows[int(r["row"]) - 1]["text"] == r["text"]
        assert int(r["row"]) in members["train"]

    # half of each class with the lowest confidence, from what the run recorded
    noted = Dynamics.load(run / "train" / "dynamics.npz")
    labels = np.array([all_rows[i - 1]["label"] for i in members["train"]])
    wanted = set()
    for name in ("negative", "positive"):
        mine = np.flatnonzero(labels == name)
        most = done.record.classes[name][1]
        wanted |= {members["train"][i] for i in mine[np.argsort(noted.mean_confidence[mine], kind="stable")][:most]}
    assert {int(r["row"]) for r in kept} == wanted
    for r in kept:
        at = members["train"].index(int(r["row"]))
        assert float(r["confidence_2"]) == pytest.approx(noted.mean_confidence[at], abs=1e-5)
        assert float(r["el2n"]) == pytest.approx(noted.error[1, at], abs=1e-5)

    # the rows that the run held out stand beside it, and the command names them
    for split in ("validation", "test"):
        others = read(tmp_path / f"kept.{split}.csv")
        assert [r["text"] for r in others] == [all_rows[i - 1]["text"] for i in sorted(members[split])]
        assert f"--{split} {tmp_path / f'kept.{split}.csv'}" in done.record.command

    # a run reads it again
    report = check_only(load_recipe(
        None, train=str(out), validation=str(tmp_path / "kept.validation.csv"), test=str(tmp_path / "kept.test.csv"),
        text="text", label="label",
    ))  # fmt: skip
    assert report.accounts[0].used == len(kept)
    assert (run / "datamap.html").is_file()
    assert (run / "report.html").is_file()
    assert json.loads((run / "prune.json").read_text())["method"] == "hard"


def test_auto_on_a_run(finished, tmp_path):
    run, _ = finished
    done = prune(run, tmp_path / "kept.jsonl", keep_share=0.4, echo=quiet, lang="zh")
    assert {t.method for t in done.record.tried} == {"random", "el2n", "forgetting", "ambiguous", "easy", "hard"}
    assert done.record.method in {t.method for t in done.record.tried}
    members = json.loads((run / "split.json").read_text())["members"]
    assert done.record.judged_on == len(members["validation"])
    rows = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == done.record.kept
    assert "数据地图" in done.page.read_text(encoding="utf-8")


def test_the_command(finished, tmp_path):
    run, _ = finished
    out = tmp_path / "kept.tsv"
    line = ["prune", str(run), "-o", str(out), "--keep-share", "0.5", "--method", "random", "--balance", "equal"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    n = len(out.read_text(encoding="utf-8").splitlines()) - 1
    assert f"{out}: {n} of " in result.stdout
    assert f"data map: {run / 'datamap.html'}" in result.stdout
    assert f"next: tunewell run --train {out}" in result.stdout
    assert CliRunner().invoke(app, line).exit_code == 2  # it is there already
    again = CliRunner().invoke(app, [*line, "--overwrite", "--json"])
    assert json.loads(again.stdout)["kept"] == n


def test_several_labels_a_row(tmp_path, tiny_model, make_reviews, save_csv):
    rows = [(t, label if i % 3 else f"{label}|long") for i, (t, label) in enumerate(make_reviews(36))]
    train = save_csv(tmp_path / "reviews.csv", rows)
    options = {k: v for k, v in KEYS.items() if k != "metric"}
    done = prune(
        train, tmp_path / "kept.csv", keep_share=0.5, method="forgetting", label_separator="|", num_train_epochs=2,
        model=str(tiny_model), output_dir=str(tmp_path / "run"), echo=quiet, progress=False, **options,
    )  # fmt: skip
    kept = read(tmp_path / "kept.csv")
    assert len(kept) == done.record.kept == 18
    assert done.record.classes == {}
    assert {r["label"] for r in kept} <= {label for _, label in rows}  # labels as they stand in the file
    events = done.pool.scores.forgetting
    assert min(events[done.kept]) >= max(events[~done.kept])


def test_a_data_file_is_tuned_on_as_a_whole(tmp_path, tiny_model, make_reviews, save_csv, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = make_reviews(40)
    twin = (rows[0][0].upper(), rows[0][1])
    train = save_csv(tmp_path / "reviews.csv", [*rows, twin])
    test = save_csv(tmp_path / "test.csv", [rows[3], *make_reviews(10, seed=5)])
    lines: list[str] = []
    options = {**KEYS, "model": str(tiny_model), "test": str(test), "echo": lines.append, "progress": False}
    done = prune(
        train, tmp_path / "a.csv", keep_share=0.5, method="el2n", tunings=2, num_train_epochs=2, duplicates="exact",
        **options,
    )  # fmt: skip
    assert len([line for line in lines if line.startswith("tune:")]) == 2
    assert done.record.rows == 41  # no row was held out
    assert (done.record.tunings, done.record.epochs) == (2, 2)
    assert done.record.left_out == {"a duplicate of a row with the same label": 1, "a test text": 1}
    kept = read(tmp_path / "a.csv")
    assert list(kept[0]) == ["text", "label", *OURS]
    assert len(kept) == round(41 / 2)
    texts = [r["text"].casefold() for r in kept]
    assert len(set(texts)) == len(texts)
    assert rows[3][0] not in texts
    found = [Dynamics.load(Path("runs/reviews-prune/train") / f"tuning-{i}" / "dynamics.npz") for i in (1, 2)]
    mean = np.mean([f.error[1] for f in found], axis=0)
    for r in kept:
        assert float(r["el2n"]) == pytest.approx(mean[int(r["row"]) - 1], abs=1e-5)

    # another method of the same rows needs no tuning
    lines.clear()
    again = prune(
        train, tmp_path / "b.csv", keep_share=0.25, method="auto", tunings=2, num_train_epochs=2, duplicates="exact",
        **options,
    )  # fmt: skip
    assert not [line for line in lines if line.startswith("tune:")]
    assert again.record.kept == round(41 / 4)
    assert again.record.judged_on == 8  # a fifth of each class, set aside
    assert f"--test {test}" in again.record.command


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--method", "elt2n"], "did you mean `el2n`?"),
        (["--balance", "fair"], "unknown balance `fair`"),
        (["--duplicates", "drop"], "unknown duplicates `drop`"),
        (["--keep-share", "0"], "`keep_share: 0` is not possible"),
        (["--keep-share", "1.5"], "`keep_share: 1.5` is not possible"),
        (["--tunings", "0"], "`tunings: 0` is not possible"),
        (["-o", "kept.xlsx"], "cannot tell the format"),
        (["-o", "reviews.csv"], "would overwrite the rows themselves"),
        (["-o", "there.csv"], "is there already"),
        (["--label", "stars"], "no column `stars`"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, make_reviews, save_csv, options, says):
    monkeypatch.chdir(tmp_path)
    save_csv(tmp_path / "reviews.csv", make_reviews(20))
    save_csv(tmp_path / "there.csv", make_reviews(20))
    result = CliRunner().invoke(app, ["prune", "reviews.csv", "-o", "kept.csv", *options])
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert not Path("kept.csv").exists()
    assert not Path("runs/reviews-prune").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("strategy", "distill", "scored by plain tuning"),
        ("augment", "swap", "scored as they are"),
        ("unlabelled", "pool.csv", "scored as they are"),
        ("framework", "tensorflow", "in PyTorch"),
    ],
)
def test_keys_that_change_what_is_scored(tmp_path, make_reviews, save_csv, key, value, says):
    train = save_csv(tmp_path / "reviews.csv", make_reviews(20))
    with pytest.raises(tunewell.TunewellError, match=says):
        prune(train, tmp_path / "kept.csv", output_dir=str(tmp_path / "run"), echo=quiet, **{key: value})
    assert not (tmp_path / "run").exists()


def test_scores_have_no_probability_of_a_label(tmp_path, tiny_model, save_csv):
    train = save_csv(tmp_path / "scores.csv", [(f"text {i}", f"{i / 7:.3f}") for i in range(40)])
    with pytest.raises(tunewell.TunewellError, match="this task is text-regression"):
        prune(train, tmp_path / "kept.csv", model=str(tiny_model), output_dir=str(tmp_path / "run"), echo=quiet)


def test_a_run_without_dynamics(finished, tmp_path):
    import shutil

    run, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "train" / "dynamics.npz").unlink()
    with pytest.raises(RunFolderError, match="left no training dynamics"):
        prune(copy, tmp_path / "kept.csv", echo=quiet)
    (copy / "task.json").unlink()
    with pytest.raises(RunFolderError, match="is not a finished run"):
        prune(copy, tmp_path / "kept.csv", echo=quiet)
    with pytest.raises(tunewell.TunewellError, match="is for tuning"):
        prune(run, tmp_path / "kept.csv", echo=quiet, num_train_epochs=2)
    assert not (tmp_path / "kept.csv").exists()
