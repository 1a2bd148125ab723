"""A sequence at work in its locked folder: what `sequence` calls, step by step."""

from __future__ import annotations

import json
import shutil
import time
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import RunFolderError
from tunewell.folder import RunFolder, fingerprint
from tunewell.results import Estimate, write_whole
from tunewell.sequence import measure
from tunewell.sequence.heads import body_of, head_of
from tunewell.sequence.job import TaskJob
from tunewell.sequence.memory import Stored, choose_rows, size_of
from tunewell.sequence.methods import hooks
from tunewell.sequence.past import Past
from tunewell.sequence.prepare import Echo, named
from tunewell.sequence.records import UNSEEN, SequenceSummary, TaskRow
from tunewell.sequence.spec import Spec, Task
from tunewell.sequence.state import State
from tunewell.sequence.watch import Watch

if TYPE_CHECKING:
    from tunewell.stages.prepare import Prepared


class Work:
    """The state of a sequence that is being carried out."""

    def __init__(
        self, spec: Spec, folder: RunFolder, prepared: list[Prepared], *, echo: Echo, progress: bool, command: str
    ) -> None:
        self.spec, self.folder, self.prepared = spec, folder, prepared
        self.echo, self.progress, self.command = echo, progress, command
        self.plan = spec.plan
        self.recipe = spec.recipe_of(spec.tasks[0])
        self.seed = self.recipe.seed
        self.keys = self._keys()
        self.lengths: dict[int, int] = {}

    # ------------------------------------------------------------ the folder

    def _keys(self) -> list[str]:
        """A fingerprint for each task of all that decides its result; each contains those before it."""
        out, key = [], fingerprint("sequence", self.spec.settings())
        for task, prepared in zip(self.spec.tasks, self.prepared, strict=True):
            key = fingerprint(key, task.to_dict(), prepared.fingerprint)
            out.append(key)
        return out

    def check_folder(self) -> None:
        """Refuse a folder that holds something else, or this sequence with other settings."""
        from tunewell.sequence.run import read_record

        path = self.folder.path
        record = read_record(path)
        if record is None:
            if (path / "recipe.yaml").is_file() or self.folder.steps:
                raise RunFolderError(
                    "holds a run, not a sequence", where=str(path), expected="an empty or new folder",
                    remedy=f"name another --output_dir; `tunewell continue {path} --train NEXT` adds a task to a run",
                )  # fmt: skip
            return
        changed = _changes(record["settings"], self.spec.settings())
        for i, (before, now) in enumerate(zip(record["tasks"], self._tasks(), strict=False), start=1):
            if before != now:
                keys = [k for k in now if before.get(k) != now.get(k)] + [k for k in before if k not in now]
                rows = "its rows are others" if keys == ["rows"] else ", ".join(k for k in keys if k != "rows")
                changed.append(f"task {i} ({now['name']}): {rows}")
        if len(record["tasks"]) > len(self.spec.tasks):
            changed.append(f"{len(record['tasks'])} tasks → {len(self.spec.tasks)}")
        if self.spec.strategy == ("joint",) and len(record["tasks"]) < len(self.spec.tasks):
            changed.append("`joint` learns all tasks at once, so none can be added")
        if changed:
            raise RunFolderError(
                "this folder holds the sequence with other settings: " + "; ".join(changed),
                where=str(path),
                expected="the settings that it was begun with; tasks may be added at the end",
                remedy="name another output_dir, or set `overwrite_output_dir: true` to start afresh",
            )

    def _tasks(self) -> list[dict[str, Any]]:
        return [{**t.to_dict(), "rows": p.fingerprint} for t, p in zip(self.spec.tasks, self.prepared, strict=True)]

    def begin(self) -> None:
        """Write what is asked for and what it runs on."""
        from tunewell.stages.environment import environment

        record = {"settings": self.spec.settings(), "tasks": self._tasks()}
        write_whole(self.folder / "sequence.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        write_whole(self.folder / "sequence.yaml", self.spec.to_yaml())
        write_whole(self.folder / "environment.json", json.dumps(environment(self.command), indent=1) + "\n")
        self.folder.mark("begin", fingerprint(record["settings"]))

    def place(self, i: int) -> Path:
        """The folder of task i."""
        return self.folder / "tasks" / f"{i + 1:02d}-{self.spec.tasks[i].name}"

    # ------------------------------------------------------------ models

    @cached_property
    def encoder(self) -> Any:
        from tunewell.models.load import load_encoder

        return load_encoder(self.recipe.model, self.recipe.revision, self.recipe.trust_remote_code)

    @cached_property
    def bf16(self) -> bool:
        from tunewell.train.tune import use_bf16

        return use_bf16(self.recipe.bf16)

    def length(self, j: int) -> int:
        """Longest input of task j in tokens."""
        from tunewell.models.load import window
        from tunewell.stages.prepare import choose_max_length

        if j not in self.lengths:
            prepared, limit = self.prepared[j], window(self.encoder.model, self.encoder.tokenizer)
            if run := self.spec.tasks[j].run:  # as it was tuned
                self.lengths[j] = int(json.loads((Path(run) / "task.json").read_text(encoding="utf-8"))["max_length"])
            else:
                self.lengths[j] = choose_max_length(
                    self.recipe, prepared.splits, self.encoder.tokenizer, limit, prepared.spec.pair
                )
        return self.lengths[j]

    def options(self) -> dict[str, Any]:
        """How models are read that are measured: in fp32."""
        return {"batch_size": self.recipe.per_device_eval_batch_size, "bf16": False}

    # ------------------------------------------------------------ measuring

    def base(self) -> None:
        """A linear probe on the base model for each task, and the base model's abilities."""
        if self.spec.own["unseen"] == "none":
            return
        cells = []
        for j, task in enumerate(self.spec.tasks):
            path = self.folder / "base" / f"{task.name}.npz"
            key = fingerprint(self.prepared[j].fingerprint, self.length(j), self.seed)

            def make(j: int = j, task: Task = task, path: Path = path) -> Any:
                self.echo(f"[{task.name}] base model: a linear probe")
                right = self._probe(self.encoder.model, j)
                measure.save_right(path, [right])
                return [right]

            cells += self.folder.step(
                f"base-{task.name}", key, [f"base/{path.name}"], make, partial(measure.load_right, path, 1)
            )
        self.base_right = cells

    base_right: list[np.ndarray | None] | None = None

    def _probe(self, model: Any, j: int) -> np.ndarray:
        return measure.probe_right(
            model, self.encoder.tokenizer, self.prepared[j], max_length=self.length(j), seed=self.seed, bf16=False
        )

    def _suite(self, half: str) -> Any:
        from tunewell.retention.suite import load_suite

        return load_suite(self.recipe.probes, self.recipe.probe_files, half=half, seed=self.seed)

    @property
    def _probes(self) -> bool:
        return self.recipe.probes != ["none"] or bool(self.recipe.probe_files)

    def _before(self, half: str) -> Any:
        """The base model on one half of the retention suite; measured once."""
        from tunewell.retention.suite import Measurements
        from tunewell.stages.probe import embedder

        path = self.folder / "probes" / f"base-{half}.npz"
        key = fingerprint(self.recipe.model, self.recipe.probes, self.recipe.probe_files, self.seed)

        def make() -> Any:
            self.echo(f"probe: base model, {half} half")
            measured = self._suite(half).measure(embedder(self.encoder.model, self.encoder.tokenizer))
            measured.save(path)
            return measured

        return self.folder.step(
            f"probe-base-{half}", key, [f"probes/base-{half}.npz"], make, lambda: Measurements.load(path)
        )

    def _retention(self, model: Any, half: str, n_boot: int = 1000) -> Any:
        from tunewell.retention.forgetting import compare
        from tunewell.stages.probe import embedder

        before = self._before(half)
        after = self._suite(half).measure(embedder(model, self.encoder.tokenizer))
        return compare(before, after, seed=self.seed, n_boot=n_boot)

    # ------------------------------------------------------------ learning

    def learn(self, i: int) -> None:
        """Tune task i on what the tasks before left, then measure every task; nothing when that is done already."""
        task, place = self.spec.tasks[i], self.place(i)
        if self.folder.done(f"task-{i + 1}", self.keys[i], [f"tasks/{place.name}/row.json"]):
            self.echo(f"[{task.name}] done already")
            return
        self.echo(f"task {i + 1} of {len(self.spec.tasks)}: {task.name}")
        started = time.perf_counter()
        state = State.read(self.place(i - 1) / "state") if i else None
        heads = dict(state.heads) if state else {}
        live = heads.pop(task.head, None)
        if task.run:
            model, job_facts, alpha = self._from_run(i)
        else:
            model, job_facts, alpha = self._tune(i, state, heads, live)
        left = State(body_of(model), {**heads, **job_facts["heads"], task.head: head_of(model)}, job_facts["left"])
        left.write(place / "state")
        stored = self._store(i, model, left)
        self._measure(i, model, left, job_facts, alpha, stored, started)
        self.folder.mark(f"task-{i + 1}", self.keys[i])
        if i:  # the state before is needed no more
            shutil.rmtree(self.place(i - 1) / "state", ignore_errors=True)
        for name in ("tuned.safetensors", "cache"):
            path = place / "train" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def job(self, i: int, *, body: Any, head: Any, others: Any, recipe: Any = None, place: Any = None) -> TaskJob:
        """The tuning of task i on a body and heads; None for the base model's and for a new one."""
        task = self.spec.tasks[i]
        return TaskJob(
            recipe or self.spec.recipe_of(task), output_dir=place or self.place(i), prepared=self.prepared[i],
            inputs=self.keys[i], body=body, head=head, others=others, head_first=self.plan.head_first,
            echo=named(self.echo, task.name), progress=self.progress,
        )  # fmt: skip

    def _tune(self, i: int, state: State | None, heads: Any, live: Any) -> tuple[Any, dict[str, Any], float | None]:
        from tunewell.stages.tune import tune, tuned_model

        others = heads if self.plan.heads_follow else {}
        with self.job(i, body=state.body if state else None, head=live, others=others) as job, Watch() as watch:
            job.begin()
            past = Past(
                heads=heads, stored=self._stored(i), rows=job.splits["train"], spec=job.spec,
                max_length=self.length(i), memory_length=max(self.length(j) for j in range(i + 1)), watch=watch,
                seed=self.seed, batch=self.recipe.per_device_train_batch_size, options=self.spec.own,
                left=state.left if state else {},
            )  # fmt: skip
            job.hooks = hooks(self.plan, past, job.recipe.model_dump(), first=i == 0)
            job.callbacks = [watch, *(h for h in job.hooks if hasattr(h, "on_pre_optimizer_step"))]
            training = tune(job)
            model = tuned_model(job)
            alpha = self._average(i, job, model, state, heads) if self.plan.average else None
            follow = model.task_heads.copies() if others else {}
            left = {h.name: h.leave(model, job) for h in job.hooks if hasattr(h, "leave")}
            facts = {"heads": follow, "left": left, "seconds": training.seconds, "n_train": len(job.splits["train"])}
            return model.eval(), facts, alpha

    def _average(self, i: int, job: TaskJob, model: Any, state: State | None, heads: Any) -> float:
        """Choose the weight of the new body in its average with the one before; leave it in `model`.

        A candidate's score is the mean over tasks of: validation accuracy of the new task; for earlier
        tasks accuracy on their stored rows, or, where none are stored, the share of the new task's
        validation rows that their heads answer as before.
        """
        from tunewell.sequence.average import choose_alpha

        keep = self.spec.recipe.get("keep")
        return choose_alpha(
            job, model, state, heads, self._stored(i),
            memory_length=max(self.length(j) for j in range(i + 1)),
            retention=(lambda m: self._retention(m, "select", 200)) if keep else None,
            keep=keep,
        )  # fmt: skip

    def _from_run(self, i: int) -> tuple[Any, dict[str, Any], float | None]:
        """The model of a finished run as the first task."""
        from tunewell.models.load import load_tuned
        from tunewell.run import Run

        run = Run(str(self.spec.tasks[i].run))
        model, _ = load_tuned(run.model_path)
        seconds = run.summary.seconds["train"]
        if self.plan.online_ewc is not None:
            self.echo(f"[{self.spec.tasks[i].name}] online_ewc: importances of a finished run are not measured")
        facts = {"heads": {}, "left": {}, "seconds": seconds, "n_train": len(self.prepared[i].splits["train"])}
        return model, facts, None

    # ------------------------------------------------------------ memory

    def _path(self, j: int) -> Path:
        return self.folder / "memory" / f"{j + 1:02d}-{self.spec.tasks[j].name}.jsonl"

    def _size(self, j: int, tasks: int) -> int:
        return size_of(self.spec.own["memory"], len(self.prepared[j].splits["train"]), tasks)

    def _stored(self, i: int) -> list[Stored]:
        """The stored rows of the tasks before task i, within the budget."""
        if not self.spec.own["memory"] or not self.plan.stores:
            return []
        return [Stored.read(self._path(j)).first(self._size(j, max(i, 1))) for j in range(i)]

    def _store(self, i: int, model: Any, state: State) -> int:
        """Choose and write the rows of task i that are kept; drop from earlier ones what the budget no longer holds."""
        from tunewell.tasks import targets

        size, prepared, task = self._size(i, i + 1), self.prepared[i], self.spec.tasks[i]
        if not size or not self.plan.stores:
            return 0
        rows, goals = prepared.splits["train"], targets(prepared.spec, prepared.splits["train"])
        tokenizer = self.encoder.tokenizer

        def vectors() -> np.ndarray:
            return measure.logits_on(
                model, tokenizer, prepared, "train", {}, max_length=self.length(i), **self.options()
            )[1][:, 0]

        order = choose_rows(
            self.spec.own["memory_choice"], n=len(rows), targets=goals, size=size, seed=self.seed, vectors=vectors
        )
        few = rows.select(order)
        from tunewell.models.embed import encode
        from tunewell.sequence.heads import run_heads

        pairs = list(few["text_pair"]) if prepared.spec.pair else None
        encoded = encode(tokenizer, list(few["text"]), pairs, self.length(i))
        logits, _ = run_heads(model, tokenizer, encoded, {"": state.heads[task.head]}, **self.options())
        Stored(task.name, task.head, list(few["text"]), pairs, goals[order], logits[""], list(few["row"])).write(
            self._path(i)
        )
        for j in range(i):
            kept, most = Stored.read(self._path(j)), self._size(j, i + 1)
            if len(kept) > most:
                kept.first(most).write(self._path(j))
        self.echo(f"[{task.name}] memory: {size:,} of {len(rows):,} rows stored ({self.spec.own['memory_choice']})")
        return size

    # ------------------------------------------------------------ a row of the matrix

    def _measure(
        self, i: int, model: Any, state: State, facts: dict[str, Any], alpha: float | None, stored: int, started: float
    ) -> None:
        cells: list[np.ndarray | None] = []
        for j, task in enumerate(self.spec.tasks):
            if task.head in state.heads and j <= i:
                cells.append(
                    measure.right_of(
                        model, self.encoder.tokenizer, self.prepared[j], state.heads[task.head],
                        max_length=self.length(j), **self.options(),
                    )
                )  # fmt: skip
            elif self.spec.own["unseen"] == "none":
                cells.append(None)
            else:
                cells.append(self._probe(model, j))
        self.write_row(self.place(i), self.spec.tasks[i].name, i, cells, model, facts, alpha, stored, started)

    def write_row(
        self,
        place: Path,
        name: str,
        i: int,
        cells: Any,
        model: Any,
        facts: Any,
        alpha: Any,
        stored: int,
        started: float,
    ) -> None:
        """row.json of a folder: what a model does after task i, from right and wrong on each task (`cells`)."""
        from tunewell.evaluate.statistics import wilson

        measure.save_right(place / "right.npz", cells)
        accuracy = []
        for cell in cells:
            if cell is None:
                accuracy.append(Estimate(value=None))
                continue
            low, high = wilson(int(cell.sum()), len(cell))
            accuracy.append(Estimate(value=float(cell.mean()), low=low, high=high, n=len(cell)))
        kept: dict[str, Any] = {}
        if self._probes and model is not None:
            retention = self._retention(model, "report")
            kept = {
                "retention_mean": retention.mean,
                "retention_worst": retention.worst,
                "worst_probe": retention.worst_probe,
                "probes": {p.name: p.retention.value for p in retention.probes if p.retention.value is not None},
            }
        row = TaskRow(
            task=name,
            accuracy=tuple(accuracy),
            alpha=alpha,
            seconds={
                "train": round(facts["seconds"], 2),
                "total": round(time.perf_counter() - started, 2),
            },
            n_train=facts["n_train"],
            stored=stored,
            **kept,
        )
        row.write(place / "row.json")
        seen = [e.value for e in accuracy[: i + 1] if e.value is not None]
        told = ", ".join(
            f"{t.name} {e.value:.3f}"
            for t, e in zip(self.spec.tasks[: i + 1], accuracy, strict=False)
            if e.value is not None
        )
        mean = row.retention_mean
        extra = f"; base abilities kept {mean.value:.3f}" if mean is not None and mean.value is not None else ""
        self.echo(f"[{name}] accuracy: {told} (mean {np.mean(seen):.3f}){extra}")

    # ------------------------------------------------------------ the end

    def about(self, j: int) -> dict[str, Any]:
        """What predicting with a task needs to know; the same keys as a run's task.json."""
        columns, task = self.prepared[j].columns, self.spec.tasks[j]
        return {
            "spec": self.prepared[j].spec.to_dict(),
            "columns": {
                "text": columns.text, "text_pair": columns.text_pair, "label": list(columns.label),
                "group": columns.group, "label_separator": columns.label_separator,
            },
            "max_length": self.length(j),
            "base_model": self.recipe.model,
            "head": task.name if self.spec.strategy == ("joint",) else task.head,
        }  # fmt: skip

    def finish(self, seconds: float) -> SequenceSummary:
        """The final model, and summary.json."""
        from tunewell.memory import peak_memory_mb
        from tunewell.sequence.figures import figures
        from tunewell.sequence.model import save_models

        tasks = self.spec.tasks
        about = {t.name: self.about(j) for j, t in enumerate(tasks)}
        if self.spec.strategy == ("joint",):
            places = [self.folder / "tasks" / "01-joint"]
        else:
            places = [self.place(i) for i in range(len(tasks))]
        if self.spec.strategy != ("separate",):
            if not self.folder.done("model", self.keys[-1], ["model/tasks.json", "model/config.json"]):
                shutil.rmtree(self.folder / "models", ignore_errors=True)  # exports of an earlier state
                state = State.read(places[-1] / "state")
                save_models(self.folder / "model", self.encoder, state, about)
                self.folder.mark("model", self.keys[-1])
        else:
            write_whole(self.folder / "models" / "tasks.json", json.dumps(about, ensure_ascii=False, indent=1) + "\n")
        rows = [TaskRow.load(place / "row.json") for place in places]
        right = [measure.load_right(place / "right.npz", len(tasks)) for place in places]
        if self.spec.strategy == ("separate",):
            right = [[right[j][j] for j in range(len(tasks))]]
            accuracy: list[tuple[Estimate, ...]] = [tuple(rows[j].accuracy[j] for j in range(len(tasks)))]
        else:
            accuracy = [self._all(row.accuracy) for row in rows]
        base = self.base_right or [None] * len(tasks)
        found = figures(right, base, seed=self.seed)
        path = self.folder / "summary.json"
        if self.folder.done("summary", self.keys[-1], ["summary.json"]):
            seconds = SequenceSummary.load(path).seconds["total"]
        own = self.spec.own
        summary = SequenceSummary(
            strategy=self.spec.strategy,
            tasks=tuple(t.name for t in tasks),
            matrix=tuple(tuple(e.value for e in row) for row in accuracy),
            **{name: e.value for name, e in found.items()},
            intervals={name: (e.low, e.high) for name, e in found.items()},
            matrix_intervals=tuple(tuple((e.low, e.high) for e in row) for row in accuracy),
            unseen=UNSEEN if own["unseen"] != "none" and len(accuracy) > 1 else None,
            base=tuple(None if c is None else float(np.mean(c)) for c in base),
            n_test=tuple(len(p.splits["test"]) for p in self.prepared),
            rows=tuple(rows),
            memory={"memory": own["memory"], "choice": own["memory_choice"], "rows": self._kept()},
            model=self.recipe.model,
            seed=self.seed,
            seconds={"train": round(sum(r.seconds["train"] for r in rows), 2), "total": round(seconds, 2)},
            peak_memory_mb=round(peak_memory_mb(), 1),
        )
        summary.write(path)
        self.folder.mark("summary", self.keys[-1])
        return summary

    def _all(self, accuracy: tuple[Estimate, ...]) -> tuple[Estimate, ...]:
        """A row with a place for every task, also those that were added after it was measured."""
        return accuracy + (Estimate(value=None),) * (len(self.spec.tasks) - len(accuracy))

    def _kept(self) -> int:
        return sum(len(Stored.read(p)) for p in sorted((self.folder / "memory").glob("*.jsonl")))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that differ, in words."""
    before, now = (json.loads(json.dumps(v)) for v in (before, now))
    return [f"{k}: {before.get(k)} → {now.get(k)}" for k in {**before, **now} if before.get(k) != now.get(k)]
