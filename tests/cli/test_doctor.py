"""`tunewell doctor`: what is there, what is missing, and what to do."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import tunewell.doctor as doctor
from tunewell.cli import app


def test_it_tells_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"0" * 1000)
    result = CliRunner().invoke(app, ["doctor", "--no-measure", "--json"])
    assert result.exit_code == 0, result.output
    found = {(f["topic"], f["name"]): f for f in json.loads(result.stdout)}
    import torch

    assert found["versions", "torch"]["found"] == torch.__version__
    assert str(tmp_path) in found["caches", "tunewell"]["found"]
    assert "usable" in found["processor", "cores"]["found"]
    text = CliRunner().invoke(app, ["doctor", "--no-measure"]).stdout
    assert "nothing to mend" in text
    assert "matrix product" not in text


def test_a_matrix_rate_is_a_rate():
    import torch

    assert 0.1 < doctor.matrix_rate(torch.float32, seconds=0.01) < 1e6


def test_what_is_wrong_is_told_with_a_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "onnx" else object())
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    result = CliRunner().invoke(app, ["doctor", "--no-measure"])
    assert result.exit_code == 2
    assert "ONNX: without onnx" in result.stdout
    assert "pip install 'tunewell[export]'" in result.stdout
    assert "✗ disk" in result.stdout
    assert "1 to mend" in result.stdout


def test_a_missing_package(monkeypatch):
    def missing(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    found = [f for f in doctor.examine(measure=False) if f.name == "torch"]
    assert found[0].level == "problem"


@pytest.mark.parametrize("line", [["doctor", "now"], ["doctor", "--speed"]])
def test_mistakes(line):
    assert CliRunner().invoke(app, line).exit_code == 2
