"""Whole runs with texts that have no labels: candidates, the guard, the report, going on after a stop."""

from __future__ import annotations

import json
import shlex

import pytest
from safetensors.torch import load_file

import tunewell
from tunewell.cli import curve
from tunewell.cli.show import run_table
from tunewell.errors import DataError, ModelError, RecipeError
from tunewell.train.dynamics import Dynamics
from tunewell.unlabelled import METHODS


@pytest.fixture
def keys(tiny_model, tmp_path, make_reviews, save_csv):
    rows = make_reviews(160)
    parts = {"train": rows[:24], "validation": rows[24:48], "test": rows[48:72]}
    files = {name: str(save_csv(tmp_path / f"{name}.csv", part)) for name, part in parts.items()}
    pool = save_csv(tmp_path / "pool.csv", [(text,) for text, _ in rows[72:120]], ("text",))
    return {
        **files, "unlabelled": str(pool), "model": str(tiny_model), "probes": "none", "explain": 0, "bf16": False,
        "threads": 1, "learning_rate": 2e-3, "num_train_epochs": 1, "metric": "accuracy", "calibrate": "none",
        "echo": lambda line: None, "progress": False,
    }  # fmt: skip


def plainly(keys):
    return {k: v for k, v in keys.items() if not k.startswith("unlabelled")}


def helping(*names):
    """A guard that lets these methods through."""

    def judge(spec, without, methods, targets, *, rule, seed):
        from tunewell.evaluate.statistics import compare

        return {n: (compare(spec, s, without, targets, seed=seed), n in names) for n, s in methods.items()}

    return judge


@pytest.fixture
def let_through(monkeypatch):
    """A guard that finds these methods better, and a choice for which they are: tiny models seldom learn anything."""

    def patch(*names):
        from tunewell.results import Estimate
        from tunewell.retention.budget import choose

        def chosen(candidates, **budget):
            lowered = {"score": Estimate(value=-1.0)}
            seen = [
                c.model_copy(update=lowered) if c.score.value is not None and len(c.strategy) == 1 else c
                for c in candidates
            ]
            found = choose(seen, **budget)
            marked = zip(candidates, found.candidates, strict=True)
            return found.model_copy(
                update={"candidates": tuple(c.model_copy(update={"chosen": f.chosen}) for c, f in marked)}
            )

        monkeypatch.setattr("tunewell.stages.unlabelled.judge", helping(*names))
        monkeypatch.setattr("tunewell.stages.unlabelled.choose_by_budget", chosen)

    return patch


def same(a, b):
    a, b = load_file(str(a)), load_file(str(b))
    return a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def test_what_does_not_help_is_not_used(keys, tmp_path, let_through):
    """All methods are tried; with none of them the model is the very one of a run without the pool."""
    let_through()
    lines: list[str] = []
    run = tunewell.run(**{**keys, "echo": lines.append}, output_dir=str(tmp_path / "with"))
    plain = tunewell.run(**plainly(keys), output_dir=str(tmp_path / "plain"))
    assert same(run.model_path / "model.safetensors", plain.model_path / "model.safetensors")
    found = run.unlabelled
    assert found is not None
    assert [m.method for m in found.methods] == list(METHODS)
    assert found.chosen is None
    assert (found.pool, found.read, found.judged, found.n) == (48, 48, "validation", 24)
    assert run.summary.unlabelled is not None
    assert run.summary.unlabelled["method"] is None
    assert len(run.choice.candidates) == 1
    said = "\n".join(lines)
    for m in found.methods:
        assert f"unlabelled: {m.method}: validation accuracy {m.score.value:.4f}, without it" in said
        assert m.comparison.difference.value == pytest.approx(m.score.value - found.without.value)
    assert "the model that learned from labelled rows alone is used" in said
    assert "tunewell curve" not in run_table(run)  # nothing to be worth anything
    guessed = found.methods[0]
    assert guessed.rows == sum(guessed.classes.values()) > 0
    assert guessed.confidence is not None
    assert guessed.least is not None
    assert guessed.temperature is not None
    pretrained = next(m for m in found.methods if m.method == "pretraining")
    assert pretrained.about["objective"] == "simcse"
    assert pretrained.about["texts"] == 48 + 24
    page = run.report_path.read_text(encoding="utf-8")
    for words in (
        "What the texts without labels brought",
        "None is used",
        "does not help, not used",
        "SimCSE: 72 texts",
    ):
        assert words.replace("SimCSE: ", "") in page
    assert f"{found.without.value:.4f}" in page


def test_what_helps_is_used_and_a_stopped_run_goes_on(keys, tmp_path, let_through):
    let_through("self_training")
    keys |= {"unlabelled_methods": "self_training", "unlabelled_rounds": 2, "lang": "zh"}
    run = tunewell.run(**keys, output_dir=str(tmp_path / "run"))
    found = run.unlabelled
    assert found is not None
    assert found.chosen == "self_training"
    assert found.methods[0].rounds == 2
    assert run.choice.chosen.strategy == ("plain", "self_training")
    assert run.summary.n_train == 24  # those with a label
    assert "无标签文本带来了什么" in run.report_path.read_text(encoding="utf-8")
    student, model = run.dir / "train" / "self_training" / "tuned.safetensors", run.model_path / "model.safetensors"
    assert same(student, model)
    assert not same(run.dir / "train" / "without" / "tuned.safetensors", model)
    assert run.training.examples == 24 + found.methods[0].rows
    noted = Dynamics.load(run.dir / "train" / "dynamics.npz")
    assert noted is not None
    assert noted.margin.shape == (1, 24)  # of the labelled rows alone

    shown = next(line.strip() for line in run_table(run).splitlines() if "tunewell curve" in line)
    asked = curve.command.make_context("curve", shlex.split(shown)[2:]).params  # a command that can be typed
    assert asked["data"] == keys["train"]
    assert list(asked["runs"]) == [str(run.dir)]
    assert {k: asked[k] for k in ("test", "validation", "model", "metric")} == {
        k: keys[k] for k in ("test", "validation", "model", "metric")
    }
    page = run.report_path.read_text(encoding="utf-8")
    assert "节省了多少标注，一次运行无法说明" in page
    assert f"--runs {run.dir}</code>" in page

    lines: list[str] = []
    again = tunewell.run(**{**keys, "echo": lines.append}, output_dir=str(tmp_path / "run"))
    assert not [line for line in lines if line.startswith("tune:")]
    assert again.summary.unlabelled == run.summary.unlabelled

    pool = tmp_path / "pool.csv"  # another pool: the tuning without it stays, the students are tuned again
    pool.write_text("\n".join(pool.read_text(encoding="utf-8").splitlines()[:-8]) + "\n", encoding="utf-8")
    lines.clear()
    other = tunewell.run(**{**keys, "echo": lines.append}, output_dir=str(tmp_path / "run"))
    assert len([line for line in lines if line.startswith("tune:")]) == 2  # a student for each round
    assert other.unlabelled is not None
    assert other.unlabelled.pool == 40

    without = tunewell.run(**plainly(keys), output_dir=str(tmp_path / "run"))
    assert without.unlabelled is None
    assert "无标签文本带来了什么" not in without.report_path.read_text(encoding="utf-8")


def test_stopped_between_candidates(keys, tmp_path, let_through, monkeypatch):
    """A run that ends after its first candidate goes on to the same model as one that does not."""
    let_through("consistency")
    keys |= {"unlabelled_methods": "propagation,consistency", "unlabelled_threshold": 0.5}
    whole = tunewell.run(**keys, output_dir=str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        import tunewell.unlabelled.make as make

        def stop(*_):
            raise KeyboardInterrupt

        patch.setitem(make.MAKERS, "consistency", stop)
        with pytest.raises(KeyboardInterrupt):
            tunewell.run(**keys, output_dir=str(tmp_path / "stopped"))
    lines: list[str] = []
    again = tunewell.run(**{**keys, "echo": lines.append}, output_dir=str(tmp_path / "stopped"))
    assert len([line for line in lines if line.startswith("tune:")]) == 1
    assert same(again.model_path / "model.safetensors", whole.model_path / "model.safetensors")
    assert whole.unlabelled is not None
    about = whole.unlabelled.methods[1].about
    assert about["threshold"] == 0.5
    assert 0 < about["counted"] <= 1


@pytest.mark.parametrize("more", [{}, {"unlabelled_consistency": "soft", "unlabelled_tsa": "log"}])
def test_stopped_in_the_middle_of_consistency(keys, tmp_path, monkeypatch, more):
    from tunewell.train.trainer import TunewellTrainer

    keys |= {"unlabelled_methods": "consistency", "num_train_epochs": 2, **more}
    whole = tunewell.run(**keys, output_dir=str(tmp_path / "whole"))
    step = TunewellTrainer.training_step

    def stopping(self, *arguments, **options):
        if self.strategies[-1].name == "consistency" and self.state.global_step == self.state.max_steps // 2 + 1:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(TunewellTrainer, "training_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            tunewell.run(**keys, output_dir=str(tmp_path / "stopped"))
    lines: list[str] = []
    again = tunewell.run(**{**keys, "echo": lines.append}, output_dir=str(tmp_path / "stopped"))
    assert any("continuing from checkpoint-" in line for line in lines)
    place = "train/consistency/tuned.safetensors"
    assert same(again.dir / place, whole.dir / place)
    assert again.unlabelled is not None
    assert whole.unlabelled is not None
    assert again.unlabelled.methods[0].about == whole.unlabelled.methods[0].about


def test_what_consistency_counted_is_of_this_tuning(keys, tmp_path):
    """Another weight in the same folder is another tuning, which has looked at no text of the pool."""
    keys |= {"unlabelled_methods": "consistency", "output_dir": str(tmp_path / "run")}
    first = tunewell.run(**keys).unlabelled
    assert first is not None and 0 <= first.methods[0].about["counted"] <= 1
    other = tunewell.run(**keys, unlabelled_weight=0.0, unlabelled_tsa="linear").unlabelled
    assert other is not None and "counted" not in other.methods[0].about
    assert other.methods[0].about["tsa"] == "linear" and 0 <= other.methods[0].about["rows_counted"] <= 1
    again = tunewell.run(**keys, unlabelled_weight=0.0, unlabelled_tsa="linear").unlabelled
    assert again is not None and again.methods[0].about == other.methods[0].about
    plain = tunewell.run(**keys, unlabelled_weight=0.0).unlabelled
    assert plain is not None and plain.methods[0].about == {}


def test_without_validation_rows_by_cross_validation(keys, tmp_path, let_through):
    let_through("propagation")
    keys |= {"validation_size": 0, "unlabelled_methods": "propagation"}
    del keys["validation"]
    run = tunewell.run(**keys, output_dir=str(tmp_path / "run"))
    found = run.unlabelled
    assert found is not None
    assert (found.judged, found.n, found.chosen) == ("cross-validation", 24, "propagation")
    assert found.methods[0].temperature is None
    assert not list((run.dir / "train").glob("fold-*"))
    assert same(run.dir / "train" / "propagation" / "tuned.safetensors", run.model_path / "model.safetensors")
    assert "4-fold cross-validation on the 24 training rows" in run.report_path.read_text(encoding="utf-8")


def test_nothing_sure_enough_is_said(keys, tmp_path, monkeypatch):
    monkeypatch.setattr("tunewell.unlabelled.make.temperature_for", lambda scores, targets: 1.0)
    lines: list[str] = []
    more = {"unlabelled_methods": "propagation", "unlabelled_threshold": 0.999999}
    run = tunewell.run(**{**keys, **more, "echo": lines.append}, output_dir=str(tmp_path / "run"))
    assert run.unlabelled is not None
    assert run.unlabelled.methods == ()
    assert run.unlabelled.skipped == {"propagation": "no text of the pool is sure enough"}
    assert any("propagation is not tried" in line for line in lines)


def test_a_pool_with_test_rows_leaves_nothing_behind(keys, tmp_path, save_csv, make_reviews):
    pool = save_csv(tmp_path / "shared.csv", [(text,) for text, _ in make_reviews(160)[60:80]], ("text",))
    with pytest.raises(DataError, match=r"12 rows of the pool are rows of test: 1 \(test, "):
        tunewell.run(**{**keys, "unlabelled": str(pool)}, output_dir=str(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_scores_are_refused(keys, tmp_path, save_csv, make_reviews):
    train = save_csv(tmp_path / "scores.csv", [(text, str(i / 7)) for i, (text, _) in enumerate(make_reviews(60))])
    more = {"train": str(train), "metric": "auto", "validation": None, "test": None}
    with pytest.raises(RecipeError, match="guesses one class a row"):
        tunewell.run(**{**keys, **more}, output_dir=str(tmp_path / "no"))


def test_a_decoder_is_not_pretrained(keys, tmp_path, tiny_decoder):
    with pytest.raises(RecipeError, match="the base model is a decoder"):
        tunewell.run(
            **{**keys, "model": str(tiny_decoder), "unlabelled_methods": "pretraining"}, output_dir=str(tmp_path / "no")
        )


@pytest.fixture(scope="session")
def masked(tiny_model, tmp_path_factory):
    """`tiny_model` drawn anew with a head for masked words."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("tiny") / "masked"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(BertConfig.from_pretrained(tiny_model)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "asked", "objective"),
    [("tiny_model", "auto", "simcse"), ("masked", "auto", "mlm"), ("masked", "simcse", "simcse"),
     ("tiny_model", "tsdae", "tsdae")],
)  # fmt: skip
def test_a_stopped_pretraining_goes_on(keys, tmp_path, model, asked, objective, request, monkeypatch):
    """Stopped after its first pass of two, it ends at the weights of one that was not."""
    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job
    from tunewell.train.trainer import TunewellTrainer
    from tunewell.unlabelled.pretraining import pretrain

    more = {"model": str(request.getfixturevalue(model)), "unlabelled_epochs": 2, "unlabelled_pretraining": asked}
    recipe = load_recipe(None, **{k: v for k, v in (keys | more).items() if k not in ("echo", "progress")})
    step = TunewellTrainer.training_step

    def stopping(self, *arguments, **options):
        if self.state.global_step == self.state.max_steps // 2 + 1:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    with Job(recipe, output_dir=None, progress=False) as job:
        assert job.pool is not None
        whole, about = pretrain(job, job.pool.texts * 3, tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr(TunewellTrainer, "training_step", stopping)
            with pytest.raises(KeyboardInterrupt):
                pretrain(job, job.pool.texts * 3, tmp_path / "stopped")
        lines: list[str] = []
        job.echo = lines.append
        again, _ = pretrain(job, job.pool.texts * 3, tmp_path / "stopped")
    assert any("continuing from checkpoint-" in line for line in lines)
    assert about["objective"] == objective
    assert all((whole[k] == again[k]).all() for k in whole)


@pytest.mark.parametrize(("model", "asked"), [("tiny_model", "simcse"), ("masked", "mlm"), ("tiny_model", "tsdae")])
def test_a_pretraining_stopped_within_a_pass_goes_on(keys, tmp_path, model, asked, request, monkeypatch):
    """By Ctrl-C, which leaves a checkpoint where it was: the text that was collated ahead is read as it would have."""
    import os
    import signal

    from tunewell.recipe_file import load_recipe
    from tunewell.stages.job import Job
    from tunewell.train.trainer import TunewellTrainer
    from tunewell.unlabelled.pretraining import pretrain

    more = {"model": str(request.getfixturevalue(model)), "unlabelled_epochs": 2, "unlabelled_pretraining": asked}
    recipe = load_recipe(None, **{k: v for k, v in (keys | more).items() if k not in ("echo", "progress")})
    step = TunewellTrainer.training_step
    at: list[int] = []

    def stopping(self, *arguments, **options):
        if self.state.global_step == self.state.max_steps // 2 + 1 and not at:
            at.append(self.state.global_step)
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments, **options)

    with Job(recipe, output_dir=None, progress=False) as job:
        assert job.pool is not None
        texts = job.pool.texts * 6
        whole, about = pretrain(job, texts, tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr(TunewellTrainer, "training_step", stopping)
            with pytest.raises(KeyboardInterrupt):
                pretrain(job, texts, tmp_path / "stopped")
        lines: list[str] = []
        job.echo = lines.append
        again, _ = pretrain(job, texts, tmp_path / "stopped")
    assert about["steps"] // 2 < at[0] + 1 < about["steps"]
    assert any(f"continuing from checkpoint-{at[0] + 1}" in line for line in lines), lines
    assert all((whole[k] == again[k]).all() for k in whole)


def test_masked_words_are_learned_where_there_is_a_head(keys, tmp_path, masked, let_through):
    """A base model with its head is pretrained by masked words, and tuning begins from those weights."""
    let_through("pretraining")
    folder = masked
    keys |= {"model": str(folder), "unlabelled_methods": "pretraining", "unlabelled_epochs": 2, "max_steps": 1}
    run = tunewell.run(**keys, output_dir=str(tmp_path / "run"))
    found = run.unlabelled
    assert found is not None
    about = found.methods[0].about
    assert (about["objective"], about["texts"], about["steps"]) == ("mlm", 72, 6)
    base, pretrained = (
        load_file(str(folder / "model.safetensors")),
        load_file(str(run.dir / "cache" / "unlabelled" / "pretraining.safetensors")),
    )
    name = "encoder.layer.0.output.dense.weight"
    tuned = load_file(str(run.model_path / "model.safetensors"))[f"bert.{name}"]
    moved = (pretrained[name] - base[f"bert.{name}"]).norm()
    assert moved > 0
    assert (tuned - pretrained[name]).norm() < (tuned - base[f"bert.{name}"]).norm()
    record = json.loads((run.dir / "unlabelled.json").read_text(encoding="utf-8"))
    assert record["chosen"] == "pretraining"


def test_tsdae_in_a_run(keys, tmp_path, masked, let_through):
    """Asked for by name, of a model that has a head for masked words: tuning begins from the encoder, the decoder is
    nowhere in the run folder."""
    let_through("pretraining")
    keys |= {
        "model": str(masked),
        "unlabelled_methods": "pretraining",
        "max_steps": 1,
        "unlabelled_pretraining": "tsdae",
    }
    run = tunewell.run(**keys, output_dir=str(tmp_path / "run"))
    assert run.unlabelled is not None
    assert run.unlabelled.methods[0].about["objective"] == "tsdae"
    weights = load_file(str(run.dir / "cache" / "unlabelled" / "pretraining.safetensors"))
    base = {k.removeprefix("bert."): v for k, v in load_file(str(masked / "model.safetensors")).items()}
    assert {k for k in weights if "pooler" not in k} == {k for k in base if not k.startswith("cls")}
    assert not any("cross" in k for k in load_file(str(run.model_path / "model.safetensors")))
    assert "TSDAE" in run.report_path.read_text(encoding="utf-8")


def test_a_way_of_pretraining_that_does_not_fit(keys, tmp_path, tiny_model):
    with pytest.raises(ModelError, match="no head for masked words") as caught:
        tunewell.run(**{**keys, "unlabelled_pretraining": "mlm"}, output_dir=str(tmp_path / "no"))
    assert "unlabelled_pretraining: simcse" in caught.value.remedy
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("key", "value", "method"),
    [("unlabelled_pretraining", "tsdae", "pretraining"), ("unlabelled_consistency", "soft", "consistency"),
     ("unlabelled_tsa", "exp", "consistency")],
)  # fmt: skip
def test_a_key_of_a_method_that_is_not_tried(keys, tmp_path, key, value, method):
    more = {key: value, "unlabelled_methods": "self_training"}
    with pytest.raises(RecipeError, match=f"`{key}` says how `{method}` works"):
        tunewell.run(**{**keys, **more}, output_dir=str(tmp_path / "no"))


@pytest.mark.parametrize("schedule", ["none", "linear"])
def test_soft_consistency_in_a_run(keys, tmp_path, let_through, schedule):
    """The soft form tunes to other weights than the hard one, and annealing to others again; both are told."""
    let_through("consistency")
    keys |= {"unlabelled_methods": "consistency", "unlabelled_threshold": 0.5, "num_train_epochs": 2}
    soft = {"unlabelled_consistency": "soft", "unlabelled_tsa": schedule}
    run = tunewell.run(**keys, **soft, output_dir=str(tmp_path / "soft"))
    hard = tunewell.run(**keys, output_dir=str(tmp_path / "hard"))
    place = "train/consistency/tuned.safetensors"
    assert not same(run.dir / place, hard.dir / place)
    assert same(run.dir / "train/without/tuned.safetensors", hard.dir / "train/without/tuned.safetensors")
    assert run.unlabelled is not None and hard.unlabelled is not None
    about = run.unlabelled.methods[0].about
    assert (about["form"], hard.unlabelled.methods[0].about["form"]) == ("soft", "hard")
    page = run.report_path.read_text(encoding="utf-8")
    assert "sharpened (UDA)" in page
    assert ("rows_counted" in about) == (schedule != "none")
    if schedule == "linear":
        assert 0 < about["rows_counted"] < 1
        assert "let in little by little (linear)" in page


def test_with_few_labels_and_contrast(keys, tmp_path, let_through, monkeypatch):
    """`fewshot` takes no validation rows, so that the guard goes by cross-validation; its contrast is over the task's
    batch, whatever texts of the pool the model is taken through beside."""
    from tunewell.unlabelled.decide import folds

    let_through("consistency")
    monkeypatch.setattr("tunewell.stages.unlabelled.folds", lambda labels, seed: folds(labels, seed, 2))
    del keys["validation"]
    keys |= {"strategy": "fewshot", "fewshot_steps": 2, "unlabelled_methods": "consistency"}
    run = tunewell.run(**keys, output_dir=str(tmp_path / "run"))
    assert run.unlabelled is not None
    assert (run.unlabelled.judged, run.unlabelled.chosen) == ("cross-validation", "consistency")
    assert run.training.strategy == ("fewshot", "consistency")
    assert 0 < run.unlabelled.methods[0].about["threshold"] < 1
    assert run.predict(["the crew was lovely"])[0] in ("negative", "positive")


def test_pairs(keys, tmp_path, make_pairs, save_csv):
    """Pairs of texts, the same twice or two others: the pool is one of pairs too."""
    rows = [(a, b, "same" if float(s) else "other") for a, b, s in make_pairs(120)]
    parts = {"train": rows[:40], "validation": rows[40:60], "test": rows[60:80]}
    header = ("text_a", "text_b", "label")
    files = {name: str(save_csv(tmp_path / f"{name}.csv", part, header)) for name, part in parts.items()}
    pool = [(a, b) for a, b, _ in rows[80:]]
    files["unlabelled"] = str(save_csv(tmp_path / "pairs.csv", [*pool, *pool[:3], rows[0][:2]], header[:2]))
    lines: list[str] = []
    run = tunewell.run(**{**keys, **files, "echo": lines.append}, output_dir=str(tmp_path / "run"))
    found = run.unlabelled
    assert found is not None
    assert found.left_out == {"a training row": 1, "the same as another": 3}
    assert {m.method for m in found.methods} == {"self_training", "propagation", "consistency"}
    assert any("pretraining is not tried: it learns from single texts" in line for line in lines)
    shared = save_csv(tmp_path / "shared.csv", [*pool, rows[65][:2]], header[:2])
    with pytest.raises(DataError, match=r"1 rows of the pool are rows of test: 41 \(test, .*test.csv:6\)"):
        tunewell.run(**{**keys, **files, "unlabelled": str(shared)}, output_dir=str(tmp_path / "no"))


def test_inside_a_budget(keys, tmp_path, let_through, make_pairs, save_csv):
    """Candidates of the method and of the tuning without it, with their averages, stand on one frontier."""
    let_through("self_training")
    probe = save_csv(tmp_path / "probe.csv", make_pairs(60), ("text_a", "text_b", "score"))
    more = {
        "strategy": "average", "average_alphas": [0.5, 1.0], "keep": 0.5, "probe_files": str(probe), "probes": "none",
        "unlabelled_methods": "self_training", "monitor": "off",
    }  # fmt: skip
    run = tunewell.run(**{**keys, **more}, output_dir=str(tmp_path / "run"), raise_on_gate=False)
    names = {(c.strategy, c.parameters.get("alpha")) for c in run.choice.candidates}
    assert {s for s, _ in names} == {("average",), ("average", "self_training")}
    assert {a for _, a in names} >= {None, 0.5}
    assert all(c.retention_mean is not None for c in run.choice.candidates)
    assert run.unlabelled is not None
    assert run.choice.chosen.strategy == ("average", "self_training")
    assert run.summary.kept is not None
    assert run.choice.costs["self_training"] > 0
