"""`fsdp`: two processes that each hold a part of the model give what one process gives, within float noise."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import pair

NAMES = ("classes", "recalled", "adapted", "scores", "packed", "anchored", "translation", "questions")


@pytest.fixture(scope="module")
def tunings(request, cases, tmp_path_factory) -> tuple[Path, Path]:
    folder, cases = tmp_path_factory.mktemp("sharded"), {name: cases[name] for name in pair.asked(request)}
    started = pair.start(folder / "two", {name: {**keys, "fsdp": True} for name, keys in cases.items()})
    return pair.alone(folder / "one", cases), pair.finish(folder / "two", started)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_model_learn_what_the_whole_learns(tunings, name):
    one, two = tunings
    pair.same(one / name, two / name)
    assert "tune: weights, gradients and moments are in 2 parts" in (two / name / "said.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["half"])
def test_in_bf16_sums_and_moments_stay_whole_numbers(tunings, name):
    """Layers compute in bfloat16, whose eighth bit is a difference of 0.4 %."""
    one, two = tunings
    pair.same(one / name, two / name, weights=1e-2, losses=2e-2, norms=0.1)
    assert pair.record(two / name)["precision"] == "bf16"


def test_parts_of_a_small_model(tmp_path):
    """See parts.py: what it asserts holds at both processes."""
    pair.finish(tmp_path, pair.launch(tmp_path, [str(pair.JOBS.with_name("parts.py")), str(tmp_path / "checkpoint")]))


@pytest.mark.slow
def test_killed_parts_go_on_in_another_number(cases, tmp_path):
    """Two processes, killed; three, killed; two to the end: as one that was never stopped."""
    case = {**cases["classes"], "num_train_epochs": 12}
    one = pair.alone(tmp_path / "one", {"case": case})
    parts = tmp_path / "parts" / "case" / "train" / "checkpoints"
    for n in (2, 3):
        started = pair.start(tmp_path / "parts", {"case": {**case, "fsdp": True}}, n)
        before, deadline = len(list(parts.glob("*/whole.json"))), time.monotonic() + pair.PATIENCE
        while len(list(parts.glob("*/whole.json"))) <= min(before, 1):
            assert started[0].poll() is None and time.monotonic() < deadline, pair.said(tmp_path / "parts", n)
            time.sleep(0.02)
        for process in started:
            process.kill()
        assert all(process.wait(60) for process in started)
        files = [f.name for f in parts.glob("*/parts/*")]
        assert files and all(name.endswith(".safetensors") for name in files)  # nothing is pickled
    two = pair.together(tmp_path / "parts", {"case": {**case, "fsdp": True}})
    pair.same(one / "case", two / "case")
    assert "tune: continuing from checkpoint-" in (two / "case" / "said.txt").read_text()


def test_what_cannot_be_in_parts_is_said(monkeypatch):
    from tunewell import processes
    from tunewell.errors import RecipeError
    from tunewell.recipe_file import load_recipe
    from tunewell.train.sharding import check

    monkeypatch.setattr(processes, "_begun", True)

    for keys, problem in (
        ({"strategy": ["gpm"]}, "turns the steps of whole layers"),
        ({"optim": "prodigy"}, "`optim: prodigy`"),
        ({"strategy": ["lora"], "load_in_4bit": True}, "cannot be cut"),
        ({"monitor": "stop", "keep": 0.98}, "`monitor: stop` reads whole weights"),
    ):
        with pytest.raises(RecipeError, match=problem) as caught:
            check(load_recipe(train="x.csv", fsdp=True, **keys))
        assert caught.value.where == "fsdp"
    check(load_recipe(train="x.csv", fsdp=True, strategy=["distill", "lora", "ema"]))


def test_one_process_has_nothing_to_share(tiny_csv, tiny_model, tmp_path):
    import tunewell
    from tunewell.errors import RecipeError

    with pytest.raises(RecipeError, match="`fsdp` spreads a model over several processes, and this is one") as caught:
        tunewell.run(train=str(tiny_csv), model=str(tiny_model), fsdp=True, output_dir=str(tmp_path / "run"))
    assert caught.value.where == "fsdp" and "torchrun" in caught.value.remedy
    assert not (tmp_path / "run" / "recipe.yaml").exists()
