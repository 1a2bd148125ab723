"""What the docs show works: shell lines parse, recipes are valid, Python names exist, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tunewell.cli import app
from tunewell.recipe import Recipe
from tunewell.recipe_file import validate
from tunewell.sequence.spec import load_spec

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
OTHER_PROGRAMS = {"pip", "git", "python3", "cd", "source", "echo", "zcat", "head", "tensorboard", "mlflow", "curl",
                  "sha256sum"}  # fmt: skip
LANGUAGES = {"bash", "python", "yaml", "text", "csv"}


@dataclass(frozen=True)
class Snippet:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match.group(1) in languages:
                found.append(Snippet(page, text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)))
    return found


def test_every_block_names_its_language() -> None:
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            assert match.group(1) in LANGUAGES, f"{page.name}: {match.group(0)[:60]}"


# ---------------------------------------------------------------- shell


def commands(snippet: Snippet) -> list[list[str]]:
    """The simple commands of a block, without comments, pipes and redirections."""
    out = []
    for line in snippet.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        part: list[str] = []
        for word in [*words, "|"]:
            if word in ("|", "&&"):
                if part:
                    out.append(part)
                part = []
            else:
                part.append(word)
    return [part[: part.index(">")] if ">" in part else part for part in out]


@pytest.mark.parametrize("snippet", snippets("bash"), ids=str)
def test_shell(snippet: Snippet) -> None:
    for program, *arguments in commands(snippet):
        if program == "tunewell":
            parse(arguments)
        elif program == "make":
            assert set(arguments) <= TARGETS, arguments
        elif program == "python":
            assert (ROOT / arguments[0]).is_file(), arguments
            text = (ROOT / arguments[0]).read_text(encoding="utf-8") + shared_options(arguments[0])
            for option in (a for a in arguments[1:] if a.startswith("--")):
                assert f'"{option}"' in text, option
        else:
            assert program in OTHER_PROGRAMS, program


def shared_options(script: str) -> str:
    """The files beside a script that it imports."""
    folder = ROOT / Path(script).parent
    names = re.findall(r"^from (\w+) import", (ROOT / script).read_text(encoding="utf-8"), re.MULTILINE)
    return "".join(p.read_text(encoding="utf-8") for name in names if (p := folder / f"{name}.py").is_file())


def parse(arguments: list[str]) -> None:
    """Let the real command line parse it; recipe keys are validated too."""
    name, *rest = arguments
    with click.Context(app, info_name="tunewell") as root:
        command = app.get_command(root, name)
        assert command is not None, name
        with command.make_context(name, rest, parent=root) as ctx:
            keys = {k: v for k, v in ctx.params.items() if k in Recipe.model_fields and v not in (None, (), "", False)}
            if name in ("run", "tune", "check", "demo"):
                validate({k: list(v) if isinstance(v, tuple) else v for k, v in keys.items()})


@pytest.mark.parametrize("line", ["run --learning_rat 1", "run --keep 2", "chek a.csv", "run --strategy distil"])
def test_wrong_lines_would_be_noticed(line: str) -> None:
    with pytest.raises((click.ClickException, Exception, AssertionError)):
        parse(shlex.split(line))


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=str)
def test_recipes(snippet: Snippet) -> None:
    keys = yaml.safe_load(snippet.text)
    assert load_spec(keys).tasks if "tasks" in keys else validate(keys).train


# ---------------------------------------------------------------- Python


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_python(snippet: Snippet) -> None:
    """It compiles; what it imports exists; keywords given to our functions are theirs."""
    tree = ast.parse(snippet.text)
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                known[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            check_call(node, known)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "run":
            from tunewell import Run

            assert hasattr(Run, node.attr), f"Run has no {node.attr}"


def check_call(node: ast.Call, known: dict[str, Any]) -> None:
    name = ast.unparse(node.func)
    target = known.get(name.split(".")[0])
    for part in name.split(".")[1:]:
        if target is not None:
            assert hasattr(target, part) or "tunewell" not in str(getattr(target, "__name__", "")), name
            target = getattr(target, part, None)
    given = {k.arg for k in node.keywords if k.arg}
    if name == "tunewell.run":
        assert given <= {*Recipe.model_fields, "echo", "progress", "raise_on_gate", "jobs", "ray"}
        validate({k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg in Recipe.model_fields})
    elif getattr(target, "__module__", "").startswith("tunewell") and target is not None:
        parameters = inspect.signature(target).parameters
        recipe_keys = set(Recipe.model_fields) if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else set()
        assert given <= {*parameters, *recipe_keys}, name


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")) and not target.endswith("images/report.png"):
            assert (page.parent / target).exists(), target


def test_both_readmes_say_the_same() -> None:
    """Same code, same links, same table shape."""
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert len(FENCE.findall(english)) == len(FENCE.findall(chinese))
    assert english.count("\n|") == chinese.count("\n|")
    links = [set(re.findall(r"\]\(([^)]+)\)", text.replace("(docs/zh/", "(docs/"))) for text in (english, chinese)]
    assert links[0] ^ links[1] == {"README.md", "README.zh.md", "docs/how-to/chinese.md"}
    for text in (english, chinese):
        ticks = [line for line in text.splitlines() if "✓" in line or "◐" in line]
        assert [[c.strip()[:1] in "✓◐" and c.strip()[:1] for c in line.split("|")] for line in ticks[1:]]


# ---------------------------------------------------------------- installing


def test_pytorch_is_installed_in_the_version_that_the_constraints_name() -> None:
    """Another version from the index of CPU builds would be replaced by the next line with one of gigabytes."""
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    lines = [
        line for snippet in snippets("bash") for line in snippet.text.splitlines() if "download.pytorch.org" in line
    ]
    assert lines
    assert {line.split()[2] for line in lines} == {f"torch=={pinned[1]}"}
