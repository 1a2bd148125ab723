"""`tunewell gate`: floors for a finished run, for CI."""

from __future__ import annotations

from typing import Any

import click

from tunewell.cli.as_json import json_option, json_text
from tunewell.cli.base import Command

_EXAMPLES = (
    "tunewell gate runs/reviews",
    "tunewell gate runs/reviews --keep 0.98 --require accuracy=0.9 --junit gate.xml",
    "tunewell gate runs/reviews --keep_probe similarity=0.95 --bound interval --json",
)


@click.command("gate", cls=Command, examples=_EXAMPLES)
@click.argument("run")
@click.option("--keep", type=float, metavar="NUMBER", help="Floor on the mean retention.")
@click.option("--keep_worst", type=float, metavar="NUMBER", help="Floor on the retention of the worst probe.")
@click.option("--keep_probe", multiple=True, metavar="PROBE=NUMBER", help="Floor on the retention of one probe.")
@click.option("--require", multiple=True, metavar="METRIC=NUMBER", help="Floor on a test metric (ceiling for errors).")
@click.option(
    "--bound",
    type=click.Choice(["value", "interval"]),
    default="value",
    help="Hold floors against the value, or against the worse end of its 95 % interval. [value]",
)
@click.option("--junit", metavar="FILE", help="Write the checks as JUnit XML too.")
@json_option("Print the checks as JSON.")
def command(
    run: str,
    keep: float | None,
    keep_worst: float | None,
    keep_probe: tuple[str, ...],
    require: tuple[str, ...],
    bound: Any,
    junit: str | None,
    as_json: bool,
) -> None:
    """Hold a finished run to floors: exit code 0 when all are met, 3 when one is not, 2 for bad input.

    Without a floor: those of the run's own recipe (`keep`, `keep_worst`).
    """
    from tunewell import gate as gates
    from tunewell.errors import GateError
    from tunewell.results import write_whole

    result = gates.gate(
        run,
        keep=keep,
        keep_worst=keep_worst,
        keep_probe=_floors(keep_probe, "keep_probe"),
        require=_floors(require, "require"),
        bound=bound,
    )
    if junit:
        write_whole(junit, gates.junit(result))
    click.echo(json_text(result) if as_json else "\n".join(map(gates.sentence, result.checks)))
    if not result.passed:
        missed = [c.name for c in result.checks if not c.passed]
        raise GateError(f"{len(missed)} of {len(result.checks)} floors not met: {', '.join(missed)}", where=run)


def _floors(typed: tuple[str, ...], option: str) -> dict[str, float]:
    """`a=0.9` and `a=0.9,b=0.8` as a mapping."""
    out: dict[str, float] = {}
    for part in (p.strip() for cell in typed for p in cell.split(",") if p.strip()):
        name, sign, number = part.partition("=")
        try:
            out[name.strip()] = float(number)
        except ValueError:
            sign = ""
        if not sign or not name.strip():
            raise click.BadParameter(f"`{part}`: expected NAME=NUMBER, such as accuracy=0.9", param_hint=f"--{option}")
    return out
