"""Recipes with mistakes: all named at once, before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "unknown key": (
        "train: a.csv\nlearning_rat: 1e-5\n",
        ("unknown key `learning_rat`; did you mean `learning_rate`?",),
    ),
    "a key twice": ("train: a.csv\nseed: 1\nkeep: 0.9\nseed: 2\n", ("`seed` is given twice, in lines 2 and 4",)),
    "wrong type": ("train: a.csv\nseed: many\n", ("`seed: many`: expected a valid integer",)),
    "a list for one": ("train: [a.csv, b.csv]\n", ("`train: ['a.csv', 'b.csv']`: expected a valid string",)),
    "out of range": ("train: a.csv\nkeep: 98\n", ("`keep: 98`: expected less than or equal to 1",)),
    "negative": ("train: a.csv\nnum_train_epochs: -1\n", ("`num_train_epochs: -1`: expected greater than 0",)),
    "not finite": ("train: a.csv\nlearning_rate: .nan\n", ("`learning_rate: nan`",)),
    "infinite weight": ("train: a.csv\ndistill_weight: .inf\n", ("`distill_weight: inf`",)),
    "unknown choice": ("train: a.csv\nloss: hinge\n", ("`loss: hinge`: expected 'auto', 'cross_entropy'",)),
    "unknown strategy": ("train: a.csv\nstrategy: distil\n", ("unknown strategy `distil`", "did you mean `distill`?")),
    "plain with another": ("train: a.csv\nstrategy: [plain, distill]\n", ("`plain` protects nothing",)),
    "a strategy twice": ("train: a.csv\nstrategy: [average, average]\n", ("a strategy is named twice",)),
    "no strategy": ("train: a.csv\nstrategy: []\n", ("strategy must name at least one of",)),
    "keep without probes": ("train: a.csv\nkeep: 0.9\nprobes: none\n", ("keep needs probes", "remove `probes: none`")),
    "nothing left to train on": (
        "train: a.csv\nvalidation_size: 0.6\ntest_size: 0.5\n",
        ("must leave rows to train on",),
    ),
    "pair with itself": ("train: a.csv\ntext: t\ntext_pair: t\n", ("text_pair must be another column than text",)),
    "alphas beyond 1": ("train: a.csv\naverage_alphas: [0.5, 2]\n", ("average_alphas must be",)),
    "two mistakes": ("train: a.csv\nkeep: 2\nsede: 3\n", ("2 mistakes:", "`keep: 2`", "did you mean `seed`?")),
    "invalid YAML": (
        "train: a.csv\nkeep: [0.9\n",
        ("recipe.yaml:3: not valid YAML", "expected: lines of `key: value`"),
    ),
    "a tab": ("train:\n\t- a.csv\n", ("recipe.yaml:2: not valid YAML",)),
    "a list": ("- train\n- a.csv\n", ("recipe.yaml: holds a list",)),
    "binary": (bytes(range(256)), ("recipe.yaml", "not valid YAML")),
    "empty": ("", ("`train` is missing", "--train reviews.csv")),
    "python object": (
        "train: !!python/object/apply:os.system [ls]\n",
        ("not valid YAML", "could not determine a constructor"),
    ),
    "unknown metric": ("train: a.csv\nmetric: f1_marco\n", ("unknown metric `f1_marco`", "did you mean `f1_macro`?")),
    "metric of another task": ("train: a.csv\nmetric: pearson\n", ("`metric: pearson` is for regression tasks",)),
    "metric to be low": ("train: a.csv\nmetric: log_loss\n", ("`metric: log_loss` cannot be the headline metric",)),
    "loss of another task": ("train: a.csv\nloss: mse\n", ("`loss: mse`",)),
    "beyond the window": (
        "train: a.csv\nmax_length: 5000\n",
        ("`max_length: 5000` is beyond the model's window", "128"),
    ),
    "no such tracker": ("train: a.csv\nreport_to: tensorbored\n", ("tensorbored", "did you mean `tensorboard`?")),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipe(case: str, here: Path, refused: Callable, tiny_model: Path, make_reviews, save_csv) -> None:
    save_csv(here / "a.csv", make_reviews(60))
    content, says = RECIPES[case]
    (here / "recipe.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    fast = ["--max_steps", "2", *([] if "keep" in case else ["--probes", "none"])]
    refused("run", "recipe.yaml", "--model", tiny_model, "--output_dir", "runs/x", *fast, says=("error: ", *says))


def test_missing_recipe(refused: Callable) -> None:
    refused("run", "recipe.yml", says=("recipe.yml: no such file", "`tunewell init DATA` writes one"))


def test_recipe_that_is_a_folder(here: Path, refused: Callable) -> None:
    (here / "recipe.yaml").mkdir()
    refused("run", "recipe.yaml", says="recipe.yaml: is a folder")


def test_data_file_in_place_of_a_recipe(here: Path, refused: Callable, make_reviews, save_csv) -> None:
    save_csv(here / "a.csv", make_reviews(4))
    refused("run", "a.csv", says=("error: a.csv",))


def test_the_same_mistakes_as_options(refused: Callable) -> None:
    refused("run", "--train", "a.csv", "--keep", "98", says="`keep: 98`: expected less than or equal to 1")
    refused("run", "--learning-rate", "fast", says="`learning_rate: fast`: expected a valid number")
    refused("run", "--train", "a.csv", "--strategy", "plain,distill", says="`plain` protects nothing")


def test_mistakes_are_found_before_anything_heavy_is_loaded(here: Path) -> None:
    code = (
        "import sys, contextlib\nfrom tunewell.cli import app\n"
        "with contextlib.suppress(SystemExit): app(['run', '--train', 'a.csv', '--keep', '98'])\n"
        "print(sorted(m for m in ('torch', 'transformers', 'datasets', 'pandas', 'sklearn') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
