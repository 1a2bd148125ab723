"""Nothing public is undocumented: recipe keys, options, names, findings, strategies, probes, papers."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import tunewell
from tunewell.cli import COMMANDS, app
from tunewell.recipe import SECTIONS, Recipe, keys_of
from tunewell.retention.suite import KNOWN
from tunewell.strategies import STRATEGIES, strategy_class

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PICTURE = DOCS / "images" / "report.png"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "reference" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- recipe and command line


@pytest.mark.parametrize("key", Recipe.model_fields)
def test_every_recipe_key_is_described(key: str) -> None:
    field = Recipe.model_fields[key]
    assert field.description, key
    assert field.description.endswith((".", ")")), key
    assert any(key in keys_of(section) for section in SECTIONS), key


def test_every_recipe_key_is_in_the_table(tables: ModuleType) -> None:
    found = re.findall(r"^\| `([a-z_0-9]+)`\{ #\1 \} \|", tables.recipe(), re.MULTILINE)
    assert sorted(found) == sorted(Recipe.model_fields)
    assert "| `keep`{ #keep } |  | number, > 0, ≤ 1 |" in tables.recipe()
    assert "| `seed`{ #seed } | `42` | whole number, ≥ 0, ≤ 4,294,967,295 |" in tables.recipe()
    assert "| `probe_files`{ #probe_files } | `[]` | list of texts |" in tables.recipe()
    assert "(`news|sport` with `|`)" in tables.recipe()  # bars within code split no cell


def test_tables_have_straight_rows(tables: ModuleType) -> None:
    for make in tables.TABLES.values():
        for block in re.findall(r"(?:^\|.*\n?)+", make(), re.MULTILINE):
            widths = {len(re.split(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in block.splitlines()}
            assert len(widths) == 1, block


def test_every_command_is_in_the_reference(tables: ModuleType) -> None:
    text = tables.cli()
    names = [name for commands in COMMANDS.values() for name in commands]
    assert re.findall(r"^### tunewell (\w+)$", text, re.MULTILINE) == names
    with click.Context(app, info_name="tunewell") as root:
        for name in names:
            command = app.get_command(root, name)
            assert command is not None
            assert command.help, name
            for param in command.params:
                if isinstance(param, click.Option) and param.name not in tables.COMMON:
                    assert param.help, f"{name} {param.opts}"
                    assert f"--{param.name}" in text or param.opts[0] in text, f"{name} {param.opts}"


def test_every_key_that_an_option_points_to_is_in_the_recipe(tables: ModuleType) -> None:
    pointed = set(re.findall(r"\(recipe\.md#([^)]*)\)", tables.cli()))
    assert "model" in pointed
    assert pointed <= set(Recipe.model_fields)


def test_marks_are_replaced(tables: ModuleType) -> None:
    for path in DOCS.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert "<!-- table:" not in tables.on_page_markdown(text), path.name
    for name in tables.TABLES:
        assert any(f"<!-- table: {name} -->" in p.read_text(encoding="utf-8") for p in DOCS.rglob("*.md")), name


def test_every_recipe_of_the_gallery_is_shown(tables: ModuleType) -> None:
    text, files = tables.gallery(), sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
    assert sorted(tables.GALLERY) == [path.stem for path in files]
    for path in files:
        _, _, keys = path.read_text(encoding="utf-8").partition(f"{path.name}")
        assert keys.partition("\n")[2] in text, path.name
    assert "# For" not in text and "For whoever" in text


# ---------------------------------------------------------------- names


def described(thing: Any) -> bool:
    return bool(inspect.getdoc(thing))


@pytest.mark.parametrize("name", [n for n in tunewell.__all__ if not n.startswith("__")])
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(tunewell, name)
    assert described(thing), name
    assert re.search(rf"^::: tunewell\.\w+(\.{name})?$", page("reference/api.md"), re.MULTILINE)
    place = "tunewell.errors" if name == "TunewellError" else f".{name}"
    assert place in page("reference/api.md"), name
    if inspect.isclass(thing):
        for member, value in inspect.getmembers(thing):
            own = getattr(getattr(value, "fget", value), "__module__", "") or ""
            if not member.startswith("_") and own.startswith("tunewell") and callable(getattr(value, "fget", value)):
                assert described(value) or member in thing.__annotations__ or own == "tunewell.run", f"{name}.{member}"


def test_names_in_the_reference_exist() -> None:
    for path in re.findall(r"^::: ([\w.]+)$", page("reference/api.md"), re.MULTILINE):
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert described(getattr(importlib.import_module(module), name)), path


def test_every_estimator_parameter_is_a_recipe_key_or_explained() -> None:
    for kind in (tunewell.TextClassifier, tunewell.TextRegressor):
        for name in kind().get_params():
            assert name in Recipe.model_fields or name in (tunewell.TextClassifier.__doc__ or ""), name


# ---------------------------------------------------------------- pages keep up with the code


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_are_explained(name: str) -> None:
    strategy = strategy_class(name)
    assert strategy.title
    for year in re.findall(r"(?:19|20)\d\d", strategy.paper):
        assert f"({year})" in page("references.md"), strategy.paper
    for author in re.findall(r"[A-Z][a-z]+(?= et al\.| &)", strategy.paper):
        assert author in page("references.md"), author
    assert f"## {name}" in page("choosing.md")
    assert f"### {name}" in page("concepts/training.md")


@pytest.mark.parametrize("name", KNOWN)
def test_probes_are_explained(name: str) -> None:
    assert f"| `{name}` |" in page("concepts/retention.md")


def test_findings_are_explained() -> None:
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src/tunewell/data/check").glob("*.py"))
    codes = set(re.findall(r'code="([a-z-]+)"', source)) | {"broken-characters", "html", "email", "phone", "card"}
    codes.discard("dropped-")
    text = page("concepts/check.md")
    assert not [code for code in codes if f"`{code}`" not in text]


def test_metrics_are_explained() -> None:
    from tunewell.evaluate.metrics import HEADLINE

    text = page("concepts/statistics.md")
    assert [names[0] for names in HEADLINE.values()] == ["f1_macro", "f1_micro", "r2"]
    for row in ("one label a row | macro-F1", "several labels a row | micro-F1", "regression | R²"):
        assert row in text


def test_papers_cited_in_the_code_are_listed() -> None:
    """Every 'Name (and …), year' of a docstring is in references.md."""
    listed = page("references.md")
    cited = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        cited |= set(
            re.findall(r"([A-Z][\w’'-]+) (?:et al\.?|& [A-Z][\w-]+|and [A-Z][\w-]+),? \(?((?:19|20)\d\d)", text)
        )
    assert cited
    assert not [f"{name} {year}" for name, year in sorted(cited) if not re.search(rf"{name}.*\({year}\)", listed)]


# ---------------------------------------------------------------- the site


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (make docs)")
@pytest.mark.skipif(not PICTURE.is_file(), reason="docs/images/report.png is taken from a finished run")
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in (tmp_path / "reference" / "recipe" / "index.html").read_text(encoding="utf-8")
