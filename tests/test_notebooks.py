"""The notebooks are whole, clean and run from top to bottom; the fast part needs nothing of Jupyter."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import tunewell
from tunewell.recipe import Recipe

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
OTHERS = {"matplotlib.pyplot", "pandas"}  # what `tunewell[notebooks]` brings, and tunewell itself
# cells that a notebook ends with in the test: what it says has to be so
ENDS = {
    "1-first-run": """
        assert run.summary.kept is not None and run.report_path.is_file()
        assert abs(run.predict_proba(texts).sum(axis=1) - 1).max() < 1e-5
    """,
    "2-forgetting": """
        assert lost.shape == (4, 2) and lost.max().max() < 1.5
        means = [points[name].retention.mean.value for name in ("plain", "alpha 0.75", "alpha 0.5")]
        assert means == sorted(means) and means[0] < keep.retention.mean.value  # less of the change, less forgotten
        assert sum(c.chosen for c in offered) == 1
    """,
    "3-why": """
        assert [len(e.words) for e in found] == [len(e.scores) for e in found]
        assert all(len(a.supports) == len(a.opposes) == 3 for a in behind)
        answers = {c.prediction for c in turned}
        assert rows and all(row[1] != row[5] for row in rows) and answers <= set(run.predictor.labels)
    """,
}


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def source(path: Path) -> str:
    """The code of a notebook as one program."""
    return "\n\n".join("".join(c["source"]) for c in load(path)["cells"] if c["cell_type"] == "code")


def public() -> set[str]:
    """Dotted names that the reference describes, and those of the package itself."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    return {f"tunewell.{name}" for name in tunewell.__all__} | set(re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE))


def test_there_are_three_and_all_are_tested() -> None:
    assert {path.stem for path in BOOKS} == set(ENDS)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_and_clean(path: Path) -> None:
    """The fourth format, with ids; nothing of the machine that it was written on."""
    book = load(path)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", each) for each in ids)
    for cell in book["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]
    assert not re.search(r"/(?:home|root|Users|tmp|work|mnt)\b|[A-Z]:\\", path.read_text(encoding="utf-8"))
    assert book["cells"][0]["source"][0].startswith("# ")
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_what_is_public(path: Path) -> None:
    """What it imports is in the reference; the keys that it gives to a run are keys of a recipe."""
    tree, known = ast.parse(source(path)), public()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= OTHERS | {"tunewell"}
        elif isinstance(node, ast.ImportFrom):
            assert {f"{node.module}.{alias.name}" for alias in node.names} <= known
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tunewell":
            assert f"tunewell.{node.attr}" in known
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "tunewell.run":
            given = {k.arg for k in node.keywords if k.arg}
            assert given <= {*Recipe.model_fields, "progress", "raise_on_gate"}


def test_the_docs_lead_to_each() -> None:
    for page in ("docs/how-to/notebooks.md", "docs/zh/how-to/notebooks.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert set(re.findall(r"examples/notebooks/([\w-]+)\.ipynb", text)) == set(ENDS)


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.filterwarnings("default")  # Jupyter's own
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    """In an empty folder, with a kernel of this Python."""
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    from textwrap import dedent

    book = nbformat.read(path, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(dedent(ENDS[path.stem])))
    client = nbclient.NotebookClient(
        book, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises where a cell does
    shown = [kind for c in book.cells if c.cell_type == "code" for o in c.outputs for kind in o.get("data", {})]
    assert "image/png" in shown and "text/html" in shown
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}
