"""`tunewell doctor`: what this machine has for tunewell, and what it lacks."""

from __future__ import annotations

import sys

import click

from tunewell.cli.as_json import json_option, show_json
from tunewell.cli.base import Command


@click.command("doctor", cls=Command, examples=("tunewell doctor", "tunewell doctor --json > doctor.json"))
@json_option("Print the findings as JSON.")
@click.option("--measure/--no-measure", default=True, help="Measure matrix multiplication, for a second. [on]")
def command(as_json: bool, measure: bool) -> None:
    """Versions, processor, memory, disk, caches, and which optional packages are missing for what.

    Exit code 2 when something must be mended before tunewell can work. Please put the output into a
    report of a fault; it names folders of this machine, but nothing of your data.
    """
    from tunewell.doctor import examine

    found = examine(measure=measure)
    if as_json:
        show_json([f.model_dump() for f in found])
    else:
        topic = ""
        for f in found:
            if f.topic != topic:
                topic = f.topic
                click.echo(f"\n{topic}" if topic != found[0].topic else topic)
            mark = {"ok": " ", "note": "!", "problem": "✗"}[f.level]
            click.echo(f"{mark} {f.name:<22} {f.found}")
            if f.remedy:
                click.echo(f"    try: {f.remedy}")
        problems = sum(f.level == "problem" for f in found)
        click.echo(f"\n{problems} to mend" if problems else "\nnothing to mend")
    if any(f.level == "problem" for f in found):
        sys.exit(2)


__all__ = ["command"]
