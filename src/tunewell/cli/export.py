"""`tunewell export`: a tuned model in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell export runs/reviews",
    "tunewell export runs/reviews --int8 -o reviews-int8",
    "tunewell export runs/reviews --to savedmodel",
    "tunewell export runs/assistant --to gguf --weights q8_0",
    "tunewell export runs/reviews --to hub -o reviews-for-the-hub",
    "tunewell export runs/reviews --to hub --push me/reviews --private --dry_run",
    "tunewell export runs/reviews --to mlflow -o reviews-mlflow",
)


@click.command("export", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option(
    "--to",
    type=click.Choice(["onnx", "savedmodel", "gguf", "merged", "hub", "mlflow"]),
    default="onnx",
    help="The form. [onnx]",
)
@click.option("-o", "--output", metavar="DIR", help="Where to. [RUN-onnx, beside the run]")
@click.option(
    "--int8", is_flag=True, help="ONNX with weights in 8 bits: a quarter of the size, about 98 % same answers."
)
@click.option("--weights", type=click.Choice(["f32", "f16", "q8_0"]), help="GGUF: how matrices are kept. [f16]")
@click.option("--overwrite", is_flag=True, help="Write over an earlier export.")
@click.option("--push", metavar="OWNER/NAME", help="With --to hub: upload the folder to this repository of the hub.")
@click.option("--private", is_flag=True, help="With --push: nobody else sees the repository.")
@click.option("--dry_run", is_flag=True, help="With --push: check and list all, upload nothing; needs no network.")
@json_option("Print the record as JSON.")
def command(
    run: str, to: Any, output: str | None, int8: bool, weights: Any, overwrite: bool, push: str | None, private: bool,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write a tuned model as ONNX, as a SavedModel of TensorFlow, as GGUF for llama.cpp (decoders), as plain merged
    weights, as a folder for the hub, or as one that MLflow loads and serves (every task).

    Every export is compared with the source model on the run's own test rows before it counts as done;
    what differs by more than rounding (8 bits: on more than 3 % of the answers) is refused. The comparison
    and both speeds are in `export.json`.

    `--push` uploads the folder for the hub, without `export.json`, after looking through it: a card that the hub cannot
    read, secrets and paths of this machine are refused. It needs a token (`hf auth login` or HF_TOKEN).
    """
    from tunewell.export.push import check_push
    from tunewell.export.push import push as upload
    from tunewell.export.run import export

    if push is not None and to != "hub":
        raise click.UsageError("--push goes with --to hub")
    if push is None and (private or dry_run):
        raise click.UsageError(f"{'--private' if private else '--dry_run'} goes with --push OWNER/NAME")
    if push is not None:
        check_push(push, dry_run=dry_run)

    place = Path(run)
    name = f"{place.parent.name if place.name == 'model' else place.absolute().name}-{to}{'-int8' if int8 else ''}"
    target = output or str((place.parent.parent if place.name == "model" else place.absolute().parent) / name)
    done = export(run, target, to=to, int8=int8, weights=weights, overwrite=overwrite, echo=say)
    pushed = None if push is None else upload(target, push, private=private, dry_run=dry_run, echo=say)
    if as_json:
        show_json(done.model_copy(update={"push": pushed}))
        return
    compared = done.parity or done.written
    for line in compared.lines() if compared else ():
        click.echo(line)
    click.echo(f"{target}: {', '.join(f'{k} {v / 1e6:,.1f} MB' for k, v in done.files.items() if v > 1e5)}")
    for line in pushed.lines() if pushed else ():
        click.echo(line)


__all__ = ["command"]
