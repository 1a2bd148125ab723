"""Each extra alone: an environment that holds the core and that extra, its example and its tests in it.

For the core and for each extra of pyproject.toml: an environment, the wheel of this checkout with that one extra under
constraints.txt, the extra's example (extras_examples.py), then pytest on top and the extra's own tests, slow ones
included where the extra has no others. `pip check` has to be content, tunewell has to come from the wheel, and before
pytest goes on nothing may be installed that neither the core nor the extra asks for, directly or through others
(`closure`).

    python benchmarks/extras.py [--only serve data] [--jobs 2] [--output FILE]

The core is installed once, into an empty environment. The others begin as a copy of it, by hard links where the disk
has them, which takes seconds and no room; since every distribution that is there is then traced back to what the core
and the extra ask for, and what is left over goes, the copy holds what an empty environment would. `--fresh` starts each
from nothing instead. Some 1.5 GB of disk, 4 GB more while `tensorflow` is looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))

from extras_examples import EXAMPLES, Environment, FailedError, check, prepare  # noqa: E402

BROUGHT = {"pip", "setuptools", "wheel"}  # by venv itself


@dataclass(frozen=True)
class Tests:
    """An extra's own tests: paths, which of them by `-k`, and whether slow ones too."""

    paths: tuple[str, ...]
    chosen: str = ""
    slow: bool = False


TESTS = {
    "data": Tests(("tests/data/test_elsewhere.py",)),
    "eval": Tests(("tests/retention/test_language.py",), "lm_eval or install_line", slow=True),
    "export": Tests(("tests/export/test_onnx.py",)),
    "generate": Tests(("tests/data/test_bilingual.py", "tests/tasks/test_translation.py")),
    "gguf": Tests(("tests/export/test_gguf.py",)),
    "mlflow": Tests(("tests/export/test_mlflow.py",)),
    "optim": Tests(("tests/strategies/test_optimisers.py",)),
    "quantize": Tests(("tests/strategies/test_quantised.py",)),
    "ray": Tests(("tests/workers/test_on_ray.py", "tests/workers/test_alone_on_ray.py"), slow=True),
    "serve": Tests(("tests/serving", "tests/selection/test_label.py", "tests/ui")),
    "tensorflow": Tests(("tests/tensorflow", "tests/export")),  # those of `make test-tensorflow`
    "track": Tests(("tests/bad_input/test_recipes.py",), "tracker"),
    "trackio": Tests(("tests/train/test_trackers.py",), "trackio"),
    "wandb": Tests(("tests/train/test_trackers.py",), "wandb"),
    "notebooks": Tests(("tests/test_notebooks.py",), slow=True),
    "fuzz": Tests(("tests/serving/test_schema_fuzz.py",), slow=True),
    "browser": Tests(("tests/ui/test_browser.py",), slow=True),
    "bench": Tests(("tests/test_extras.py",)),
    "docs": Tests(("tests/docs/test_reference.py",)),
    "dev": Tests(("tests/explain/test_captum.py",)),
}
# in the core, where nothing optional is installed, these have to be left out or pass; of three extras the files hold
# mostly tests of the core, which are long
MIXED = {"eval", "track", "docs"}
TESTS["core"] = Tests(
    ("tests/cli/test_doctor.py", *dict.fromkeys(p for name, t in TESTS.items() if name not in MIXED for p in t.paths))
)


def plain(name: str) -> str:
    """A distribution's name as they are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(wanted: Iterable[str], asks: Callable[[str], list[str] | None]) -> tuple[set[str], set[str]]:
    """Names of the distributions that requirements ask for, directly or not, and of those that are missing.

    Args:
        wanted: requirements to start from, such as `tunewell[serve]`. asks: a distribution's requirements, None where
            it is not installed.
    """
    from packaging.requirements import Requirement

    todo = [Requirement(each) for each in wanted]
    seen: set[tuple[str, str]] = set()
    missing: set[str] = set()
    while todo:
        asked = todo.pop()
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        name = plain(asked.name)
        for extra in ("", *asked.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = asks(name)
            if needs is None:
                missing.add(name)
                continue
            for each in (Requirement(need) for need in needs):
                if each.marker is None or each.marker.evaluate({"extra": extra}):
                    each.marker = None
                    todo.append(each)
    return {name for name, _ in seen} - missing, missing


def requirements_here(name: str) -> list[str] | None:
    """What an installed distribution asks for; None where it is not installed."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires(name) or []
    except PackageNotFoundError:
        return None


def of_this_environment(requirement: str) -> dict[str, Any]:
    """Called in the environment under test: what it holds too much or too little, and where tunewell is."""
    from importlib.metadata import distributions

    import tunewell

    asked, missing = closure([requirement], requirements_here)
    strangers = {plain(d.metadata["Name"]) for d in distributions()} - asked - BROUGHT
    return {"strangers": sorted(strangers), "missing": sorted(missing), "tunewell": tunewell.__file__}


def clone(base: Environment, folder: Path) -> Environment:
    """A copy of an environment in another folder: files are shared, which pip replaces and never writes into."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(base.folder, folder, symlinks=True, copy_function=link)
    made = Environment(folder)
    for script in made.python.parent.iterdir():  # they name the Python that they are for
        if script.is_file() and not script.is_symlink():
            text = script.read_bytes()
            if text.startswith(b"#!") and bytes(base.python) in text:
                mode = script.stat().st_mode
                script.unlink()
                script.write_bytes(text.replace(bytes(base.python), bytes(made.python)))
                script.chmod(mode)
    return made


def empty(folder: Path) -> Environment:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, env=Environment.variables())
    return Environment(folder)


def install(env: Environment, *what: str) -> float:
    """Seconds that it took."""
    started = time.perf_counter()
    env.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", *what)
    return time.perf_counter() - started


def megabytes(folder: Path) -> float:
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink()) / 1e6


def run_tests(env: Environment, tests: Tests, place: Path) -> dict[str, int]:
    """passed, skipped, failed (errors included), by pytest's own last line."""
    chosen = ["-k", tests.chosen] if tests.chosen else []
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(place), "-rfs", *chosen,
               *(["-m", ""] if tests.slow else []), *tests.paths]  # fmt: skip
    done = subprocess.run(
        [str(env.python), *command], cwd=ROOT, env=env.variables(), capture_output=True, text=True, check=False
    )
    said = done.stdout.strip()
    last = said.splitlines()[-1] if said else ""
    found = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|skipped|failed|errors?)", last)}
    counts = {
        "passed": found.get("passed", 0),
        "skipped": found.get("skipped", 0),
        "failed": found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0),
    }
    if done.returncode not in (0, 5) or counts["failed"] or not counts["passed"]:  # 5: none to run
        counts["failed"] = max(1, counts["failed"])
        print(f"{said[-6000:]}\n{done.stderr[-2000:]}", file=sys.stderr)
    return counts


def examine(name: str, env: Environment, wheel: Path, base_mb: float, shared: Path, place: Path) -> dict[str, Any]:
    """Install, check, example, tests: the figures of one extra."""
    row: dict[str, Any] = {"extra": name}
    requirement = "tunewell" if name == "core" else f"tunewell[{name}]"
    before = {plain(path.name.split("-")[0]) for path in env.folder.rglob("*.dist-info")}
    if name != "core":
        row["install_seconds"] = round(install(env, str(wheel) + requirement.removeprefix("tunewell")), 1)
    row["mb"] = round(megabytes(env.folder) - base_mb, 1)
    program = f"import sys, json; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import extras; "
    program += f"print(json.dumps(extras.of_this_environment({requirement!r})))"
    held = json.loads(env.run("-c", program))
    left = [name for name in held["strangers"] if name in before]
    if left:  # of the core, and no more asked for by the version of another package that the extra wants
        env.run("-m", "pip", "uninstall", "--quiet", "--yes", *left)
        held = json.loads(env.run("-c", program))
    env.run("-m", "pip", "check", "--disable-pip-version-check")
    check(not held["strangers"] and not held["missing"], f"not what the core and the extra ask for: {held}")
    check(Path(held["tunewell"]).is_relative_to(env.folder), f"tunewell is {held['tunewell']}, not the wheel's")
    started = time.perf_counter()
    (place / "example").mkdir(parents=True)
    row["example"] = EXAMPLES[name](env, place / "example", shared)
    row["example_seconds"] = round(time.perf_counter() - started, 1)
    install(env, "pytest")
    started = time.perf_counter()
    row |= run_tests(env, TESTS[name], place / "tests")
    row["test_seconds"] = round(time.perf_counter() - started, 1)
    return row


def line(row: dict[str, Any]) -> str:
    figures = [f"{row.get(key, 0):,.0f}" for key in ("mb", "install_seconds", "example_seconds")]
    counts = [str(row.get(key, "")) for key in ("passed", "skipped", "failed")]
    shown = [row["extra"], *figures[:2], row.get("example", ""), figures[2], *counts]
    return f"| {' | '.join(shown)} |"


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--only", nargs="+", choices=sorted(EXAMPLES), default=list(EXAMPLES), metavar="EXTRA")
    args.add_argument("--fresh", action="store_true", help="install the core anew for each extra")
    args.add_argument("--folder", type=Path, default=None, help="where the environments go; a core in it is used again")
    args.add_argument("--jobs", type=int, default=1, help="extras at a time")
    args.add_argument("--output", type=Path, default=None, help="append the figures to this file as JSON lines")
    options = args.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="extras-")).absolute()
    shared, dist = folder / "shared", folder / "dist"
    faults: list[str] = []
    shutil.rmtree(dist, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--wheel-dir", str(dist), str(ROOT)], check=True)  # fmt: skip
    (wheel,) = dist.glob("*.whl")
    base, seconds = Environment(folder / "core"), 0.0
    if not base.python.exists():
        base = empty(folder / "core")
        seconds = install(base, str(wheel))
    else:
        install(base, "--no-deps", "--force-reinstall", str(wheel))
    core_mb = megabytes(base.folder)
    print("| extra | MB | install, s | example | s | passed | skipped | failed |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    names = [name for name in EXAMPLES if name in options.only]
    if not (shared / "decoder" / "config.json").is_file():  # written last
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir()
        prepare(base, shared)

    def one(name: str) -> dict[str, Any]:
        place, at = folder / f"work-{name}", folder / f"env-{name}"
        for old in (place, at):
            shutil.rmtree(old, ignore_errors=True)
        try:
            env = empty(at) if options.fresh and name != "core" else clone(base, at)
            row = examine(name, env, wheel, 0.0 if name == "core" else core_mb, shared, place)
        except FailedError as error:
            row = {"extra": name, "example": "failed", "fault": str(error)}
        finally:
            shutil.rmtree(at, ignore_errors=True)
        return row | ({"install_seconds": round(seconds, 1)} if name == "core" else {})

    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(one, name) for name in names]
        for done in as_completed(waiting):
            row = done.result()
            print(line(row), flush=True)
            if row.get("passed") == 0:
                faults.append(f"{row['extra']}: none of its tests was run")
            if row.get("failed"):
                faults.append(f"{row['extra']}: {row['failed']} of its tests failed")
            elif "fault" in row:
                faults.append(f"{row['extra']}: {row['fault']}")
            if options.output is not None:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"benchmark": "extras", **row}) + "\n")
    if options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    if faults:
        sys.exit("\n\n".join(faults))


if __name__ == "__main__":
    main()
