"""What `make dist` makes beside wheel and sdist."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def load() -> Any:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "benchmarks" / "sbom.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_of_parts_names_its_wheel_and_no_installer(tmp_path: Path) -> None:
    wheel = tmp_path / "tunewell-1.2.3-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    names = {"a": "attrs", "p": "pip", "s": "setuptools", "t": "tunewell"}
    bom = {
        "metadata": {"component": {"bom-ref": "root", "name": "tunewell"}},
        "components": [{"bom-ref": ref, "name": name} for ref, name in names.items()],
        "dependencies": [
            {"ref": "root", "dependsOn": ["a"]}, {"ref": "a", "dependsOn": ["s"]}, {"ref": "p"}, {"ref": "s"},
            {"ref": "t", "dependsOn": ["a"]},
        ],
    }  # fmt: skip
    done = load().finished(bom, wheel)
    root = done["metadata"]["component"]
    assert (root["version"], root["purl"]) == ("1.2.3", "pkg:pypi/tunewell@1.2.3")
    assert root["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"a wheel").hexdigest()}]
    # setuptools stays, since attrs (here) needs it; pip and the project as a part of itself go
    assert [c["name"] for c in done["components"]] == ["attrs", "setuptools"]
    assert done["dependencies"] == [
        {"ref": "a", "dependsOn": ["s"]}, {"ref": "root", "dependsOn": ["a"]}, {"ref": "s"}
    ]  # fmt: skip


def test_checksums_are_taken_last() -> None:
    """So that they hold for every file that is published, the list of parts too."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = text[text.index("\ndist:") : text.index("\nclean:")]
    assert "*.whl *.tar.gz sbom.cdx.json > SHA256SUMS" in recipe.strip().splitlines()[-1]
