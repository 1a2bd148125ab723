"""What is optional stays so: the extras, what asks for them, and that nothing else is imported."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

from tunewell.doctor import WHAT_FOR
from tunewell.errors import RecipeError
from tunewell.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]
NAMES = {"mlflow": "mlflow-skinny"}  # modules that are not called as their distributions
SOURCES = sorted((ROOT / "src" / "tunewell").rglob("*.py"))


@pytest.fixture(scope="module")
def extras() -> ModuleType:
    """benchmarks/extras.py, which tries each extra alone."""
    spec = importlib.util.spec_from_file_location("extras", ROOT / "benchmarks" / "extras.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules["extras"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;! ]", name)[0]).lower()


def test_modules_that_are_asked_for_are_in_their_extra() -> None:
    for extra, modules in EXTRAS.items():
        brought = {plain(each) for each in OPTIONAL[extra]}
        assert {plain(NAMES.get(module, module)) for module in modules} <= brought, extra


def test_doctor_says_what_each_is_for() -> None:
    assert set(WHAT_FOR) == set(EXTRAS)


def test_install_lines_name_extras_that_there_are() -> None:
    pages = [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    named = {
        name.strip()
        for page in pages
        for found in re.findall(r"(?:tunewell|['\"]\.)\[([a-z, ]+)\]", page.read_text(encoding="utf-8"))
        for name in found.split(",")
    }
    assert named <= set(OPTIONAL), named - set(OPTIONAL)
    assert {"serve", "export", "tensorflow"} <= named


def test_each_is_tried_alone(extras: ModuleType) -> None:
    """By its own example and its own tests, in benchmarks/extras.py."""
    assert set(extras.EXAMPLES) == set(extras.TESTS) == {"core", *OPTIONAL}
    assert all((ROOT / path).exists() for tests in extras.TESTS.values() for path in tests.paths)


def test_what_a_requirement_brings(extras: ModuleType) -> None:
    asks = {
        "a": ["B_c>=1", "d; extra == 'more'", "gone; python_version < '3'", "A[more]; extra == 'all'"],
        "b-c": ["e[x]"],
        "d": [],
        "e": ["f; extra == 'x'", "g; extra == 'y'"],
    }
    assert extras.closure(["a"], asks.get) == ({"a", "b-c", "e"}, {"f"})
    assert extras.closure(["a[more]"], asks.get) == ({"a", "b-c", "e", "d"}, {"f"})
    assert extras.closure(["a[all]"], asks.get) == ({"a", "b-c", "e", "d"}, {"f"})


def test_the_environment_of_one_extra_has_a_place_of_its_own(extras: ModuleType, tmp_path: Path) -> None:
    """Scripts of a copy start the copy's Python, and the original is not written into."""
    base = extras.Environment(tmp_path / "core")
    base.python.parent.mkdir(parents=True)
    base.python.write_text("")
    script = base.python.with_name("tunewell")
    script.write_text(f"#!{base.python}\nimport tunewell\n")
    script.chmod(0o755)
    copy = extras.clone(base, tmp_path / "copy")
    assert (copy.folder / script.relative_to(base.folder)).read_text() == f"#!{copy.python}\nimport tunewell\n"
    assert (copy.folder / script.relative_to(base.folder)).stat().st_mode & 0o111
    assert script.read_text() == f"#!{base.python}\nimport tunewell\n"


def imports() -> dict[str, Path]:
    """The packages that tunewell imports anywhere, each with a file that does."""
    out: dict[str, Path] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                out.setdefault(name.split(".")[0], path)
    return {name: path for name, path in out.items() if name not in sys.stdlib_module_names and name != "tunewell"}


def test_everything_imported_is_asked_for(extras: ModuleType) -> None:
    """By the core, by what it asks for, or by an extra."""
    core, missing = extras.closure(PROJECT["dependencies"], extras.requirements_here)
    assert not missing
    optional = {plain(each) for requirements in OPTIONAL.values() for each in requirements}
    brought = {"starlette"}  # FastAPI's
    homes = packages_distributions()
    for name, path in imports().items():
        found = {plain(each) for each in homes.get(name, [NAMES.get(name, name)])}
        assert found & (core | optional | brought), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("tracker", "line"),
    [
        ("mlflow", "'tunewell[mlflow]'"),
        ("tensorboard", "'tunewell[track]'"),
        ("wandb", "'tunewell[wandb]'"),
        ("trackio", "'tunewell[trackio]'"),
    ],
)
def test_a_tracker_that_is_missing(tracker: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewell.stages import preflight

    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=f"the tracker `{tracker}` is not installed") as caught:
        preflight.trackers([tracker])
    assert caught.value.remedy == f"pip install {line}"


def test_a_translation_without_its_measures(tiny_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is written, not after it has been tuned."""
    import tunewell

    pairs = tmp_path / "pairs.csv"
    pairs.write_text("source,target\n" + "".join(f"room {i},Zimmer {i}\n" for i in range(40)), encoding="utf-8")
    monkeypatch.setattr("tunewell.extras.find_spec", lambda name: None)
    with pytest.raises(tunewell.TunewellError, match="sacrebleu is not installed") as caught:
        tunewell.run(train=str(pairs), model=str(tiny_t5), probes="none", output_dir=str(tmp_path / "run"),
                     echo=lambda line: None, progress=False)  # fmt: skip
    assert (caught.value.where, caught.value.remedy) == ("task: translation", "pip install 'tunewell[generate]'")
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]


def test_what_tensorboard_shows_outlives_the_checkpoints(tmp_path: Path) -> None:
    """It was removed with them, and `tensorboard --logdir` had nothing to show of a finished run."""
    from tunewell.train.tune import _keep_events

    _keep_events(tmp_path)
    assert not (tmp_path / "tensorboard").exists()
    file = tmp_path / "checkpoints" / "runs" / "Nov28_host" / "events.out.tfevents.1"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    _keep_events(tmp_path)
    assert (tmp_path / "tensorboard" / "Nov28_host" / "events.out.tfevents.1").read_bytes() == b"x"
