"""Reading texts without labels: what is left out, what is refused, and keys that do not go together."""

from __future__ import annotations

import pytest

from tunewell.errors import DataError, RecipeError
from tunewell.recipe_file import load_recipe
from tunewell.stages.prepare import prepare
from tunewell.unlabelled.pool import read_pool


@pytest.fixture
def keys(tmp_path, make_reviews, save_csv):
    rows = make_reviews(60)
    parts = {"train": rows[:40], "validation": rows[40:50], "test": rows[50:60]}
    return {name: str(save_csv(tmp_path / f"{name}.csv", part)) for name, part in parts.items()}


@pytest.fixture
def read(keys, tmp_path, save_csv):
    def made(texts, header=("text",), **more):
        path = save_csv(tmp_path / "pool.csv", [t if isinstance(t, tuple) else (t,) for t in texts], header)
        recipe = load_recipe(None, **keys, unlabelled=str(path), **more)
        prepared = prepare(recipe)
        return read_pool(recipe, prepared.columns, prepared.splits)

    return made


@pytest.fixture
def rows(make_reviews):
    return [text for text, _ in make_reviews(60)]


def test_each_text_once_and_no_training_row(read, rows):
    found = read(["a new text", "  A  NEW text ", "another one", rows[0], rows[1].upper(), " "])
    assert found.texts == ["a new text", "another one"]
    assert found.rows["row"][:] == [1, 3]
    assert (found.read, len(found)) == (6, 2)
    assert found.left_out == {"empty": 1, "a training row": 2, "the same as another": 1}
    assert found.read == len(found) + sum(found.left_out.values())
    assert "1 empty, 2 a training row, 1 the same as another" in " ".join(found.notices)


@pytest.mark.parametrize(("place", "name"), [(40, "validation"), (55, "test")])
def test_rows_that_are_measured_on_are_refused_by_number(read, rows, place, name):
    row = place - {"validation": 40, "test": 50}[name] + 1
    with pytest.raises(DataError) as error:
        read(["a new text", rows[place].upper(), "another one"])
    assert f"1 rows of the pool are rows of {name}: 2 ({name}, " in str(error.value)
    assert f"{name}.csv:{row})" in str(error.value)
    assert "pool.csv:2" in str(error.value)
    assert "take these rows out" in str(error.value)


def test_many_shared_rows_are_counted(read, rows):
    with pytest.raises(DataError, match=r"20 rows of the pool are rows of validation and test: 1 .* and 10 more"):
        read(rows[40:60])


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_an_empty_pool_is_an_error(read, texts):
    with pytest.raises(DataError, match=r"but no rows|no text is left of 2 rows: 2 empty"):
        read(texts)


def test_a_pool_of_training_rows_alone_is_an_error(read, rows):
    with pytest.raises(DataError, match=r"no text is left of 40 rows: 40 a training row"):
        read(rows[:40])


def test_a_sample_is_taken_of_a_long_pool(read):
    texts = [f"text number {i}" for i in range(50)]
    found = read(texts, unlabelled_samples=20)
    assert len(found) == 20
    assert found.left_out == {"beyond unlabelled_samples": 30}
    assert found.texts == sorted(found.texts, key=texts.index)
    assert found.fingerprint == read(texts, unlabelled_samples=20).fingerprint
    assert found.fingerprint != read(texts, unlabelled_samples=20, seed=1).fingerprint


def test_the_text_column_is_found_and_labels_are_not_read(read):
    found = read([("x", "first text of all"), ("y", "second text of all")], header=("label", "sentence"))
    assert found.texts == ["first text of all", "second text of all"]
    said = " ".join(found.notices)
    assert "text column: 'sentence'" in said
    assert "labels in its column 'label' are not read" in said


def test_no_such_file(keys):
    recipe = load_recipe(None, **keys, unlabelled="nowhere.csv")
    prepared = prepare(recipe)
    with pytest.raises(DataError, match="no such file"):
        read_pool(recipe, prepared.columns, prepared.splits)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"unlabelled": None, "unlabelled_rounds": 2}, "`unlabelled_rounds` says what to do"),
        ({"unlabelled_methods": "magic"}, "no such method `magic`: there are auto, self_training"),
        ({"unlabelled_methods": "auto,propagation"}, "leave the others out"),
        ({"unlabelled_methods": []}, "name one or more of auto"),
        ({"strategy": "auto", "keep": 0.9}, "are a search each"),
        ({"seeds": 2}, "`seeds` repeats one tuning"),
        ({"framework": "tensorflow"}, "by pytorch"),
        ({"unlabelled_threshold": 1.0}, "unlabelled_threshold"),
        ({"unlabelled_rounds": 0}, "unlabelled_rounds"),
    ],
)
def test_keys_that_do_not_go_together(keys, more, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe(None, **{**keys, "unlabelled": "pool.csv", **more})


def test_a_learning_curve_is_one_of_labelled_rows(keys):
    from tunewell.curve.run import learning_curve

    with pytest.raises(RecipeError, match="one of labelled rows"):
        learning_curve(load_recipe(None, **keys, unlabelled="pool.csv"))
