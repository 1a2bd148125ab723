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
@json_option("Print the record as JSON.")
def command(run: str, to: Any, output: str | None, int8: bool, weights: Any, overwrite: bool, as_json: bool) -> None:
    """Write a tuned model as ONNX, as a SavedModel of TensorFlow, as GGUF for llama.cpp (decoders), as plain merged
    weights, as a folder for the hub, or as one that MLflow loads and serves (every task).

    Every export is compared with the source model on the run's own test rows before it counts as done;
    what differs by more than rounding (8 bits: on more than 3 % of the answers) is refused. The comparison
    and both speeds are in `export.json`.
    """
    from tunewell.export.run import export

    place = Path(run)
    name = f"{place.parent.name if place.name == 'model' else place.absolute().name}-{to}{'-int8' if int8 else ''}"
    target = output or str((place.parent.parent if place.name == "model" else place.absolute().parent) / name)
    done = export(run, target, to=to, int8=int8, weights=weights, overwrite=overwrite, echo=say)
    if as_json:
        show_json(done)
        return
    compared = done.parity or done.written
    for line in compared.lines() if compared else ():
        click.echo(line)
    click.echo(f"{target}: {', '.join(f'{k} {v / 1e6:,.1f} MB' for k, v in done.files.items() if v > 1e5)}")


__all__ = ["command"]
