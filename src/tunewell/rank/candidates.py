"""Which models are compared: those that are named, or what is at hand; and which kind of model a task is tuned on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tunewell.errors import RecipeError, TunewellError
from tunewell.rank.records import Skipped

ENCODERS = ("text-classification", "text-regression")
FITS: dict[tuple[str, str], tuple[bool, str]] = {
    ("text-classification", "encoder"): (True, "an encoder: every token sees the whole text"),
    ("text-regression", "encoder"): (True, "an encoder: every token sees the whole text"),
    ("text-generation", "decoder"): (True, "a decoder: writes an answer token by token"),
    ("translation", "encoder-decoder"): (True, "an encoder-decoder: reads the source whole, then writes"),
    ("translation", "decoder"): (True, "a decoder: translates when it is prompted to"),
}
WHY_NOT = {
    "encoder": "an encoder writes no text",
    "decoder": "a decoder: a token sees only what stands before it, and classes and scores are tuned on encoders",
    "encoder-decoder": "an encoder-decoder: made to write one text for another",
}
RANKED_TASKS = tuple(dict.fromkeys(task for task, _ in FITS))


def fit(task: str, kind: str) -> tuple[bool, str]:
    """Whether a task is tuned on this kind of model, and why.

    >>> fit("text-classification", "encoder")[0], fit("text-generation", "encoder")
    (True, (False, 'an encoder writes no text'))
    """
    return FITS.get((task, kind), (False, WHY_NOT[kind]))


def check_task(task: str) -> None:
    """Refuse a task that no ranking is made for.

    Raises:
        RecipeError: question answering.
    """
    if task not in RANKED_TASKS:
        raise RecipeError(
            f"base models cannot be ranked for {task}: there is no score for it",
            where="task",
            expected=", ".join(RANKED_TASKS),
            remedy="name a model: `tunewell models` lists what is at hand",
        )


def kind_at(name: str, path: str, *, trust_remote_code: bool = False, revision: str | None = None) -> str:
    """What a located model is, by its config.

    Raises:
        ModelError: no readable config.
    """
    from transformers import AutoConfig

    from tunewell.models.load import load_part
    from tunewell.tasks.generation.models import kind_of

    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    return str(kind_of(load_part(AutoConfig.from_pretrained, name, path, "config", **options)))


def at_hand(task: str) -> tuple[list[str], list[Skipped]]:
    """Packaged models and models of the hub cache that the task can be tuned on; and the others, with the reason.

    A packaged model that has not been fetched yet is judged by its title, so that nothing is fetched in vain.
    """
    from tunewell import assets

    names, left = [], []
    for model in assets.local_models():
        if model.kind != "model":
            continue
        kind = None
        if model.cached:
            try:
                place = _folder(model.path) if model.origin == "asset" else model.path
                kind = kind_at(model.name, place)
            except TunewellError as error:
                left.append(Skipped(model.name, error.what))
                continue
        elif found := re.search(r"\b(encoder-decoder|encoder|decoder)\b", model.title):
            kind = found[1]
        good, why = fit(task, kind) if kind else (True, "")
        if good:
            names.append(model.name)
        else:
            left.append(Skipped(model.name, why))
    return names, left


def _folder(path: str) -> str:
    """Where an asset's config is: unpacked from GGUF where it comes as that."""
    from tunewell.models.gguf import unpacked

    return str(unpacked(Path(path)))


def named(models: Sequence[str]) -> list[str]:
    """The names that a user gave, in order.

    Raises:
        RecipeError: none, or one twice.
    """
    names = [name.strip() for name in models]
    if not names or not all(names):
        raise RecipeError(
            "no model is named" if not names else "a model's name is empty",
            where="models",
            expected="assets, folders or hub ids",
            remedy="leave `models` out to compare what is at hand; `tunewell models` lists it",
        )
    if "auto" in names:
        raise RecipeError(
            "`auto` is what a ranking chooses, not a candidate",
            where="models",
            expected="assets, folders or hub ids",
        )
    for i, name in enumerate(names):
        if name in names[:i]:
            raise RecipeError(f"`{name}` is named twice", where="models", expected="each candidate once")
    return names


def licence_of(name: str, path: str) -> str:
    """The licence of an asset or of a model card beside the weights; empty where none is told."""
    from tunewell import assets

    asset = assets.find(name, kind="model")
    if asset is not None:
        return asset.licence
    if Path(path).is_dir():
        return assets.card_licence(Path(path) / "README.md")
    for model in assets.local_models():
        if model.name == name:
            return model.licence
    return ""
