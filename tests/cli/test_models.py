"""`tunewell models`: the list, and one folder alone on the last line."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tunewell import assets
from tunewell.cli import app


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No asset and no hub model is here, except what a test puts there."""
    import huggingface_hub.constants as constants

    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    for module in (constants, import_module("huggingface_hub.utils._cache_manager")):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def models(*args: str) -> Result:
    return CliRunner().invoke(app, ["models", *args])


def cached_hub_model(root: Path, name: str = "someone/tiny-bert") -> Path:
    """What the hub client leaves behind, by hand."""
    repository = root / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    return snapshot


def test_list() -> None:
    result = models()
    assert result.exit_code == 0, result.stderr
    assert "Models\n" in result.stdout
    assert "Data\n" in result.stdout
    for name in assets.ASSETS:
        assert f"\n  {name} " in result.stdout


def test_list_as_json() -> None:
    rows = json.loads(models("--json").stdout)
    assert {row["name"] for row in rows} == set(assets.ASSETS)
    assert all(row["cached"] is False and row["path"] == "" for row in rows)


def test_path_of_an_asset_is_alone_on_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, *, progress, allow_sdist: bool) -> Path:
        progress(f"fetching {name}")
        return tmp_path / name

    monkeypatch.setattr(assets, "fetch", fetch)
    result = models("--path", "sentence-transformers/all-MiniLM-L6-v2")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'all-MiniLM-L6-v2'}\n")
    assert result.stderr == "fetching all-MiniLM-L6-v2\n"


def test_path_of_a_folder_and_of_a_cached_hub_model(tmp_path: Path) -> None:
    assert models("--path", str(tmp_path)).stdout == f"{tmp_path}\n"
    snapshot = cached_hub_model(tmp_path)
    result = models("--path", "someone/tiny-bert")
    assert result.exit_code == 0, result.stderr
    assert Path(result.stdout.rstrip("\n")) == snapshot


def test_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    cached_hub_model(tmp_path)
    result = models("--path", "splade-tinny")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: splade-tinny: no asset and no model in the local cache\n")
    assert result.stderr.endswith("  try: did you mean `splade-tiny`?\n")
    assert "someone/tiny-bert" in result.stderr
    result = models("--path", "not a/valid/id at all")
    assert result.exit_code == 2
    assert "`tunewell models` lists all" in result.stderr
