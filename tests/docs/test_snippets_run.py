"""The commands and programs of README, tutorial, how-to and concept pages are run, as they stand.

Every page gets an empty folder with the files and finished runs that it speaks of. Models that it names are there as
folders of the same name, which hold tiny ones, and the packaged probes are replaced by a small file; nothing else is
changed. What cannot be run here is named in `CANNOT`, with the reason.
"""

from __future__ import annotations

import contextlib
import glob
import io
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from pages_data import Maker
from test_snippets import ROOT, Snippet, snippets

sys.path.pop(0)

# a piece of a line -> why it is only parsed
CANNOT = {
    "pip install": "installs packages",
    "git clone": "fetches the repository",
    "source .venv": "belongs to installing",
    "python3 -m venv": "belongs to installing",
    "make ": "is what runs these tests, or takes minutes",
    "tunewell demo": "takes minutes; `make demo` runs it",
    "tunewell serve": "serves until it is stopped; tests/serving does that",
    "tunewell ui": "serves until it is stopped; tests/ui does that",
    "tensorboard --logdir": "serves until it is stopped",
    "mlflow models serve": "serves until it is stopped",
    "curl ": "asks a server that is not there",
    "--ray": "needs a cluster; tests/workers does that",
    'ray="auto"': "needs a cluster; tests/workers does that",
    "postgresql://": "needs a database server",
    "https://example.org": "needs the network",
    "python benchmarks/": "takes minutes to hours",
    "explain runs/translate": "a tiny translator writes no word to explain; tests/explain/answers does",
    "explain runs/assistant": "a tiny decoder writes no word to explain; tests/explain/answers does",
    "tunewell slices runs/reviews   ": "README's run has too few test rows; that of how-to/explain.md has enough",
    "--probe similarity --keep": "a tiny run has lost nothing that could be regained; tests/test_regain.py",
    "recipe.yaml --seeds 8": "its workers would measure the packaged probes; tests/workers does that",
    "--private --overwrite": "uploads; tests/export/test_push.py does so to a stand-in",
    "backtranslate": "translates by packaged models of 35 MB",
    "homeassistant-ui": "tunes on 15,652 rows",
    "register()": "opens the run of a packaged translator",
    "model_.save_pretrained": "defines a function that needs a fitted estimator; tests/test_estimators.py",
}
NEEDS = {"--framework tensorflow": "tensorflow", "--to savedmodel": "tensorflow", "--to mlflow": "mlflow",
         "log_model": "mlflow", "--to gguf": "xllamacpp", "tensorboard": "tensorboard", "--int8": "onnxruntime",
         "int8=True": "onnxruntime", "tunewell export runs/reviews": "onnxruntime",
         "reviews.xlsx": "openpyxl"}  # fmt: skip
FOLDERS = ("README.md", "docs/tutorial.md", "docs/how-to", "docs/concepts", "docs/index.md", "docs/choosing.md")
GATE = {"tunewell gate"}  # may answer no: exit code 3


def shown() -> dict[Path, list[Snippet]]:
    """Blocks of shell and Python by page, and the YAML between them, in order."""
    out: dict[Path, list[Snippet]] = {}
    for snippet in snippets("bash", "python", "yaml"):
        if str(snippet.page.relative_to(ROOT)).startswith(FOLDERS):
            out.setdefault(snippet.page, []).append(snippet)
    return {page: found for page, found in out.items() if any(s.language != "yaml" for s in found)}


def lines(snippet: Snippet) -> list[str]:
    """The commands of a block of shell, or the whole of another."""
    if snippet.language != "bash":
        return [snippet.text]
    return [line for line in snippet.text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


def reason(text: str) -> str:
    """Why a piece is not run, or nothing."""
    return next((why for part, why in CANNOT.items() if part in text), "")


PAGES = shown()


# ---------------------------------------------------------------- what is run, and what is not


def test_most_of_what_the_pages_show_is_run() -> None:
    pieces = [line for found in PAGES.values() for s in found if s.language != "yaml" for line in lines(s)]
    left = [piece for piece in pieces if reason(piece)]
    for part in CANNOT:
        assert any(part in piece for piece in pieces), f"{part!r} stands on no page any more"
    print(f"{len(pieces) - len(left)} of {len(pieces)} pieces on {len(PAGES)} pages are run")
    assert len(left) < len(pieces) / 4


# ---------------------------------------------------------------- running


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Maker:
    """Makes files, models and runs; runs are made once and copied from then on."""
    models = {name: request.getfixturevalue(name) for name in ("tiny_model", "tiny_decoder", "tiny_t5")}
    return Maker(tmp_path_factory.mktemp("runs"), models)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: Maker) -> Path:
    import tunewell.data.packaged as packaged
    import tunewell.retention.suite as suites

    real, texts = suites.load_suite, maker.texts
    probe = tmp_path / "similarity.csv"
    maker.probe(probe)

    def suite(probes: Any, probe_files: Any, **options: Any) -> Any:
        own = "none" not in probes
        return real(["none"], [*probe_files, *([str(probe)] if own else [])], **options)

    monkeypatch.setattr(suites, "load_suite", suite)
    monkeypatch.setattr(packaged, "general_sentences", lambda n, seed: texts[:n])
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def written(words: list[str]) -> str:
    """The file or folder that a command writes, or nothing."""
    for option in ("-o", "--output", "--output_dir"):
        if option in words[1:-1]:
            return words[words.index(option) + 1]
    if words[1] == "run":
        return "runs/reviews"  # what recipe.yaml and the name of reviews.csv lead to
    if words[1] == "init":
        return "recipe.yaml"
    return f"{words[2]}-onnx" if words[1] == "export" else ""


def remove(name: str) -> None:
    """Each line of a page begins afresh: lines are often alternatives."""
    path = Path(name)
    if name and path.is_dir():
        shutil.rmtree(path)
    elif name:
        path.unlink(missing_ok=True)


def shell(line: str, again: bool) -> None:
    """One line: `tunewell …`, perhaps after `echo … |`, perhaps with `> FILE`."""
    from tunewell.cli import app

    words = shlex.split(line, comments=True)
    given = None
    if "|" in words:
        at = words.index("|")
        assert words[0] == "echo", line
        given, words = " ".join(words[1:at]) + "\n", words[at + 1 :]
    target = ""
    if ">" in words:
        words, target = words[: words.index(">")], words[-1]
    assert words[0] == "tunewell", line
    words = [part for word in words for part in (sorted(glob.glob(word)) if "*" in word and "runs" in word else [word])]
    if not again:
        remove(written(words))
    done = CliRunner().invoke(app, words[1:], input=given)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if type(done.exception).__name__ == "GateError" and f"tunewell {words[1]}" in GATE:
            return
        raise AssertionError(f"{line}\n{done.exception}\n{done.output[-2000:]}") from done.exception
    assert done.exit_code == 0 or (done.exit_code == 3 and f"tunewell {words[1]}" in GATE), f"{line}\n{done.output}"
    if target:
        Path(target).write_text(done.stdout, encoding="utf-8")


@contextlib.contextmanager
def silent() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        yield out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, place: Path, maker: Maker) -> None:
    maker.prepare(place, page.stem, page.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    hooks: dict[str, Callable[[], None]] = maker.hooks(page.stem)
    for snippet in PAGES[page]:
        if snippet.language == "yaml":
            maker.recipe(snippet.text)
            continue
        for piece in lines(snippet):
            if reason(piece):
                continue
            if any(importlib_missing(module) for part, module in NEEDS.items() if part in piece):
                continue
            if snippet.language == "bash":
                shell(piece, again=page.stem == "resume" and "overwrite" in piece)
            else:
                with silent():
                    for name in ("runs/reviews", "runs/few") if "tunewell.run(" in piece else ("kept.csv",):
                        remove(name)
                    exec(compile(piece, str(snippet), "exec"), names)
            for part, hook in hooks.items():
                if part in piece:
                    hook()


def importlib_missing(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is None


def test_a_line_that_fails_is_noticed(place: Path, maker: Maker) -> None:
    with pytest.raises(AssertionError, match=r"missing\.csv"):
        shell("tunewell check missing.csv", again=False)


def test_every_prepared_file_is_used(maker: Maker) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [name for name in maker.files if name not in text]
