"""`tunewell sequence`: task after task on one shared body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tunewell.cli.as_json import SUMMARY, json_option, show_json, summary_of
from tunewell.cli.base import Command, command_line, say, show_progress
from tunewell.cli.options import given, recipe_options, worker_options
from tunewell.cli.show import DASH, duration, number, table

if TYPE_CHECKING:
    from tunewell.sequence.run import Sequence

_EXAMPLES = (
    "tunewell sequence sequence.yaml",
    "tunewell sequence sequence.yaml --strategy replay --memory 200 --output_dir runs/replay",
    "tunewell sequence sequence.yaml --memory 0 --seed 7 --output_dir runs/nothing-stored",
    "tunewell predict runs/sequence new.csv --task_name reviews",
)
# what a sequence has beyond a recipe: name -> help
OWN = {
    "strategy": "One of auto, plain, distill, average, replay, der, lwf, features, general, agem, joint, separate; "
    "several compose (`replay,lwf`). [auto]",
    "memory": "Stored rows: a share of each task's rows (below 1) or a number in all; 0 stores none. [0.01]",
    "memory_choice": "How stored rows are chosen: reservoir, balanced or herding. [balanced]",
    "head_first": "Fit each new head on the frozen body before tuning: true or false; by default the strategy says.",
    "replay_weight": "Weight of the stored rows' loss (replay, der). [1]",
    "der_weight": "Weight of the squared distance to stored logits (der). [0.5]",
    "lwf_weight": "Weight of earlier heads' answers on new inputs (lwf). [1]",
    "lwf_temperature": "Temperature of those answers. [2]",
    "features_weight": "Weight of the body's embeddings of new inputs (features). [1]",
    "general_weight": "Weight of the body's embeddings of general text (general). [1]",
    "joint_temperature": "`joint`: tasks take part in proportion to rows^(1/T); by default all at every step.",
    "unseen": "How tasks not yet seen are measured: linear-probe or none. [linear-probe]",
}
# keys of a recipe that hold for every task of a sequence
SHARED = ("model", "revision", "trust_remote_code", "max_length", "probes", "probe_files", "general_text",
          "general_samples", "distill_weight", "average_alphas", "keep", "validation_size", "test_size",
          "max_train_samples", "encoding", "duplicates", "learning_rate", "num_train_epochs", "max_steps",
          "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size", "warmup_ratio",
          "lr_scheduler_type", "weight_decay", "attention_dropout", "max_grad_norm", "loss",
          "label_smoothing_factor", "class_weight", "early_stopping_patience", "evals_per_epoch", "bf16", "seed",
          "threads", "output_dir", "overwrite_output_dir", "lang")  # fmt: skip


def own_options(command: Any) -> Any:
    """The options of OWN, values handed on as they were typed."""
    for name, text in reversed(OWN.items()):
        command = click.option(f"--{name}", name, metavar="TEXT", default=None, help=text)(command)
    return command


def keys_from(values: dict[str, Any]) -> dict[str, Any]:
    """Typed keys, those of OWN read as YAML would read them."""
    import yaml

    typed = given(values)
    return {k: yaml.safe_load(v) if k in OWN and k != "strategy" else v for k, v in typed.items()}


@click.command("sequence", cls=Command, examples=_EXAMPLES)
@click.argument("file")
@json_option(SUMMARY)
@own_options
@worker_options
@recipe_options(only=SHARED)
def command(file: str, as_json: bool, jobs: int | None, ray: str | None, **keys: Any) -> None:
    """Tune one model on task after task; measure after each what became of the others.

    FILE is YAML with `strategy`, `output_dir` and `tasks`, a list of `name`, `train`, `test`, `text`, `label`.
    Its other keys are options too, which take precedence over the file. All files are read before the
    first task is tuned.

    A sequence that was stopped goes on where it was when the same command is given again. Tasks may be
    added at the end of the file, or with `tunewell continue`. --jobs and --ray are for `strategy: separate`, whose
    tasks are independent.
    """
    from tunewell.sequence.run import run_sequence
    from tunewell.sequence.spec import load_spec

    spec = load_spec(file, **keys_from(keys))
    options: dict[str, Any] = {"echo": say, "progress": show_progress(), "command": command_line()}
    try:
        done = run_sequence(spec, **options, jobs=jobs, ray=ray)
    except KeyboardInterrupt:
        say("\nthe same command goes on from here")
        raise
    if as_json:
        show_json(summary_of(done))
    else:
        click.echo(sequence_table(done))


def sequence_table(done: Sequence) -> str:
    """The accuracy matrix, the four figures, and where everything is."""
    s = done.summary
    square = len(s.matrix) == len(s.tasks) > 1
    rows = [["after", *s.tasks, "kept"]]
    for i, row in enumerate(s.matrix):
        cells = [f"({number(v)})" if square and j > i and v is not None else number(v) for j, v in enumerate(row)]
        kept = s.rows[i].retention_mean if len(s.rows) == len(s.matrix) else None
        rows.append([s.tasks[i] if square else " + ".join(s.strategy), *cells, number(kept.value) if kept else DASH])
    parts = ["", "Accuracy on each task's test rows", table(rows, right=tuple(range(1, len(s.tasks) + 2)))]
    if s.unseen and square:
        parts.append(f"  in brackets: not yet learned, {s.unseen}; kept: mean retention of the base model's abilities")
    figures = [["", "", "95 % interval"]]
    for name in ("average_accuracy", "backward_transfer", "forward_transfer", "forgetting"):
        value, (low, high) = getattr(s, name), s.intervals[name]
        if value is not None:
            figures.append([name.replace("_", " "), f"{value:.4f}", f"{number(low, 4)} to {number(high, 4)}"])
    parts += ["", table(figures, right=(1,)), ""]
    parts.append(
        f"  {s.memory['rows']:,} rows stored, tuning {duration(s.seconds['train'])}, in all "
        f"{duration(s.seconds['total'])}, memory {s.peak_memory_mb:,.0f} MB"
    )
    model = done.model_path if done.model_path.is_dir() else done.dir / "models"
    parts += ["", f"model   {model}", f"report  {done.report_path}"]
    return "\n".join(parts)
