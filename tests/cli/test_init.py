"""`tunewell init`: the recipe it writes is whole, valid and explains itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tunewell.cli import app
from tunewell.recipe import SECTIONS, Recipe, keys_of
from tunewell.recipe_file import load_recipe


def init(*args: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, args)])


def test_inferred_columns_are_set_and_all_else_is_a_comment(tiny_csv: Path, tmp_path: Path) -> None:
    target = tmp_path / "recipe.yaml"
    result = init(tiny_csv, "-o", target)
    assert result.exit_code == 0, result.stderr
    assert f"wrote {target}; then: tunewell run {target}" in result.stdout
    text = target.read_text()
    set_here = yaml.safe_load(text)
    assert set_here == {"train": str(tiny_csv), "text": "text", "label": ["label"], "task": "text-classification"}
    assert load_recipe(target) == Recipe(**set_here)
    assert "120 rows; columns: text, label" in text
    assert "# keep: null" in text
    assert "# learning_rate: null" in text
    assert max(map(len, text.splitlines())) <= 130


def test_with_every_comment_taken_away_it_still_says_the_same(tiny_csv: Path, tmp_path: Path) -> None:
    target = tmp_path / "recipe.yaml"
    init(tiny_csv, "-o", target)
    keys = tuple(f"# {name}: " for name in Recipe.model_fields)
    open_ = [line.removeprefix("# ") if line.startswith(keys) else line for line in target.read_text().splitlines()]
    values = yaml.safe_load("\n".join(open_))
    assert list(values) == [key for section in SECTIONS for key in keys_of(section)]
    assert set(values) == set(Recipe.model_fields)
    assert Recipe(**values) == load_recipe(target)


def test_typed_keys_win(tmp_path: Path, save_csv) -> None:
    data = save_csv(tmp_path / "a b.csv", [(f"t{i}", f"u{i}", str(i % 2)) for i in range(40)], ("one", "two", "stars"))
    target = tmp_path / "my recipe.yaml"
    result = init(data, "-o", target, "--text", "one", "--text-pair", "two", "--label", "stars")
    assert result.exit_code == 0, result.stderr
    recipe = load_recipe(target)
    assert (recipe.train, recipe.text, recipe.text_pair, recipe.label) == (str(data), "one", "two", ["stars"])
    assert f"tunewell run '{target}'" in result.stdout


def test_never_overwrites_unless_forced(tiny_csv: Path, tmp_path: Path) -> None:
    target = tmp_path / "recipe.yaml"
    target.write_text("mine")
    result = init(tiny_csv, "-o", target)
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {target}: is there already\n  expected: a new file\n  try: name another -o, or --force\n"
    )
    assert target.read_text() == "mine"
    assert init(tiny_csv, "-o", target, "--force").exit_code == 0
    assert load_recipe(target).train == str(tiny_csv)


@pytest.mark.parametrize(("name", "message"), [("none.csv", "no such file"), ("empty.csv", "is empty")])
def test_a_bad_file_leaves_no_recipe(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty.csv").write_text("")
    result = init(tmp_path / name, "-o", tmp_path / "recipe.yaml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "recipe.yaml").exists()
