"""What the shell offers for `tunewell export ru<TAB>`: run folders, files, folders and names of packaged models.

One table says what a parameter takes, so that a command need not. Nothing heavy is imported, and no more than
MOST_FOLDERS folders are looked into.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import CompletionItem

DEPTH = 3  # folders below what was typed, as runs/tickets/2027/plain
MOST, MOST_FOLDERS = 100, 2000  # offered; looked into
FINISHED = "summary.json"  # of runs and sequences


def runs(typed: str) -> list[CompletionItem]:
    """Run folders whose path begins as typed; any folder where there is none. `NAME=RUN` is known, too."""
    name, equals, path = typed.rpartition("=")
    found = [CompletionItem(name + equals + run, help="run") for run in islice(_runs(path), MOST)]
    return found or folders(typed)


def models(typed: str) -> list[CompletionItem]:
    """Packaged models, and folders with a model."""
    from tunewell.asset_table import ASSETS

    names = [a for a in ASSETS.values() if a.kind == "model" and a.name.startswith(typed)]
    found = [CompletionItem(a.name, help=a.title) for a in names]
    found += [CompletionItem(shown) for shown, path in _folders(typed) if (path / "config.json").is_file()]
    return found or folders(typed)


def models_or_runs(typed: str) -> list[CompletionItem]:
    """What `probe` measures: models and runs."""
    return _first(models(typed), [CompletionItem(r, help="run") for r in islice(_runs(typed), MOST)] if typed else [])


def data(typed: str) -> list[CompletionItem]:
    """Files; packaged data where no file begins as typed."""
    from tunewell.asset_table import ASSETS

    here = any(True for _ in _entries(typed))
    named = [a for a in ASSETS.values() if typed and not here and a.kind == "data" and a.name.startswith(typed)]
    return [CompletionItem(a.name, help=a.title) for a in named] or files(typed)


def data_or_runs(typed: str) -> list[CompletionItem]:
    """What `prune` reads: a run where one begins as typed, else a file."""
    return [item for item in runs(typed) if item.type == "plain"] if typed and any(_runs(typed)) else files(typed)


def files(typed: str) -> list[CompletionItem]:
    """Whatever files the shell finds."""
    return [CompletionItem(typed, type="file")]


def folders(typed: str) -> list[CompletionItem]:
    """Whatever folders the shell finds."""
    return [CompletionItem(typed, type="dir")]


Offer = Callable[[str], list[CompletionItem]]

# name of an argument or option -> what it takes; others go by METAVARS
OFFERS: dict[str, Offer] = {
    "run": runs, "runs": runs, "rows": data_or_runs,
    "model": models, "models": models, "mlm": models, "mask_model": models, "augment_mlm": models,
    "translators": models, "augment_translators": models,
    "train": data, "validation": data, "test": data, "unlabelled": data, "data": data, "pool": data,
    "general_text": files, "probe_files": files, "recipe": files, "file": files,
    "tasks": files, "folder": folders, "output_dir": folders,
}  # fmt: skip
OF_COMMAND: dict[tuple[str, str], Offer] = {
    ("probe", "model"): models_or_runs, ("probe", "model2"): models_or_runs, ("models", "name"): models,
}  # fmt: skip
METAVARS: dict[str, Offer] = {"FILE": files, "DIR": folders, "RUN": runs}


class Completed(click.types.StringParamType):
    """A text as it was typed, of which the shell knows what it may be."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return self.offer(incomplete)


def offer_of(command: str, param: click.Parameter) -> Offer | None:
    """What the shell is to offer for a parameter; None where anything may stand or click knows."""
    if type(param.type) is not click.types.StringParamType:
        return None
    name = param.name or ""
    by_metavar = METAVARS.get(str(param.metavar)) if isinstance(param, click.Option) else None
    return OF_COMMAND.get((command, name)) or OFFERS.get(name) or by_metavar


def complete(command: click.Command) -> None:
    """Let a command's parameters be completed."""
    for param in command.params:
        if (offer := offer_of(command.name or "", param)) is not None:
            param.type = Completed(offer)


# ---------------------------------------------------------------- looking


def _entries(typed: str) -> Iterator[tuple[str, Path]]:
    """Files and folders whose path begins as typed: as it would be typed, and where it lies."""
    head, tail = os.path.split(typed)
    place = Path(head).expanduser() if head else Path()
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return
    for name in names:
        if name.startswith(tail) and (tail.startswith(".") or not name.startswith(".")):
            yield os.path.join(head, name), place / name


def _folders(typed: str) -> Iterator[tuple[str, Path]]:
    return ((shown, path) for shown, path in _entries(typed) if path.is_dir())


def _runs(typed: str) -> Iterator[str]:
    """Finished runs and sequences that begin as typed or lie in such a folder, at most DEPTH below."""
    waiting = [(shown, path, 0) for shown, path in _folders(typed)]
    seen = 0
    while waiting and seen < MOST_FOLDERS:
        shown, path, depth = waiting.pop(0)
        seen += 1
        if (path / FINISHED).is_file():
            yield shown
        elif depth < DEPTH:
            waiting += [(name, folder, depth + 1) for name, folder in _folders(os.path.join(shown, ""))]


def _first(*lists: list[CompletionItem]) -> list[CompletionItem]:
    """All plain offers together; the first list where there is none."""
    return [item for items in lists for item in items if item.type == "plain"] or lists[0]
