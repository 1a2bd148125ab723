"""Examples in docstrings are run: what they say is what comes out."""

import doctest
import importlib
from pathlib import Path

import pytest

import tunewell

SOURCE = Path(tunewell.__file__).parent
FILES = sorted(p.relative_to(SOURCE.parent) for p in SOURCE.rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to("tunewell")) for f in FILES])
def test_examples_of_docstrings(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    found = [t for t in doctest.DocTestFinder(exclude_empty=True).find(module, name) if t.examples]
    assert found, "there are examples in this file that no docstring holds"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in found:
        runner.run(test, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)
