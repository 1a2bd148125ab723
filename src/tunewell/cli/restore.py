"""`tunewell restore`: part of what tuning changed is taken back, without training."""

from __future__ import annotations

import click

from tunewell.cli.as_json import SUMMARY, json_option, show_json, summary_of
from tunewell.cli.base import Command, command_line, say, show_progress

_EXAMPLES = (
    "tunewell restore runs/reviews --alpha 0.7",
    "tunewell restore runs/reviews --alpha 0.3 --layerwise --output_dir runs/reviews-kept",
    "tunewell restore runs/reviews --probe similarity --keep 0.98",
)


@click.command("restore", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option(
    "--alpha",
    type=float,
    metavar="NUMBER",
    help="Share of the change kept: 0 the base model, 1 as tuned.",
)
@click.option("--layerwise", is_flag=True, help="The first layer keeps alpha of its change, the last all (LiNeS).")
@click.option("--probe", metavar="NAME", help="Take whole layers back, as few as regain this probe, instead of alpha.")
@click.option("--keep", type=float, metavar="NUMBER", help="How much the probe is to keep; by default as the run.")
@click.option("--output_dir", metavar="TEXT", help="Folder of the restored run; by default <run>-<alpha or probe>.")
@click.option("--overwrite_output_dir", is_flag=True, help="Start afresh in a folder that holds another run.")
@json_option(SUMMARY)
def command(
    run: str,
    alpha: float | None,
    layerwise: bool,
    probe: str | None,
    keep: float | None,
    output_dir: str | None,
    overwrite_output_dir: bool,
    as_json: bool,
) -> None:
    """Re-weight a tuned model between its base model and itself, measure it again, and say what was regained.

    RUN is a finished run, whose base model and data must still be there. Nothing is trained; the restored
    model is a run folder of its own.
    """
    from tunewell.cli.show import restored_table
    from tunewell.restore import restore
    from tunewell.run import load_run

    restored = restore(
        run,
        alpha=alpha,
        layerwise=layerwise,
        probe=probe,
        keep=keep,
        output_dir=output_dir,
        overwrite=overwrite_output_dir,
        echo=say,
        progress=show_progress(),
        command=command_line(),
    )
    if as_json:
        show_json(summary_of(restored))
    else:
        click.echo(restored_table(load_run(run), restored))
