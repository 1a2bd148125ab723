"""Meta-learning as a story: read the family, hold tasks out, learn, keep enough, measure, probe, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError
from tunewell.folder import RunFolder, file_hash, fingerprint
from tunewell.meta.family import Task, deal, fitting, read_family, without_held_out
from tunewell.meta.methods import method
from tunewell.meta.records import FamilyTask, MetaLearning
from tunewell.meta.settings import Settings
from tunewell.results import Retention, write_whole, write_with

if TYPE_CHECKING:
    from tunewell.meta.draw import Body, Tokens
    from tunewell.recipe import Recipe

Echo = Callable[[str], None]
RECORD = "meta.json"
# keys of a recipe that mean something here
KEYS = ("text", "text_pair", "label", "encoding", "model", "revision", "trust_remote_code", "max_length", "keep",
        "probes", "probe_files", "bf16", "seed", "threads", "output_dir", "overwrite_output_dir", "lang")  # fmt: skip


def run_meta(
    place: str, settings: Settings, recipe: Recipe, *, echo: Echo, progress: bool, command: str = ""
) -> MetaLearning:
    """See `tunewell.meta.meta`.

    Args:
        place: the tasks. recipe: only KEYS may be set.
    """
    started = time.perf_counter()
    _check(recipe)
    from tunewell.models.load import locate

    path = locate(recipe.model)  # a model that is not there is told before files are read
    tasks, notices = read_family(place, recipe, settings.task_column)
    roles = deal(tasks, settings.held_out, settings.selection, recipe.seed)
    tasks = without_held_out(tasks, roles, notices)
    tasks = [fitting(t, settings.ways, settings.shots, notices) for t in tasks]
    for line in notices:
        echo(f"data: {line}")
    for role, said in (("learn", "to learn from"), ("select", "to choose on"), ("report", "to report on")):
        echo(f"tasks {said}: " + ", ".join(t.name for t in tasks if roles[t.name] == role))
    output = recipe.output_dir or str(Path("runs") / f"{Path(place).name.split('.')[0] or 'tasks'}-meta")
    with RunFolder(output, overwrite=recipe.overwrite_output_dir) as folder:
        folder.say = echo
        work = _Work(place, path, settings, recipe, tasks, roles, notices, folder, echo, progress)
        work.begin(command)
        record = work.finish(started)
        from tunewell.report.meta import build

        echo(f"report: {build(folder.path, record, lang=recipe.lang)}")
    return record


def _check(recipe: Recipe) -> None:
    for key in sorted(recipe.model_fields_set - set(KEYS)):
        raise RecipeError(
            f"`{key}` is not for meta-learning",
            where=key,
            expected="one of " + ", ".join(KEYS),
            remedy="`tunewell meta --help` lists what is",
        )
    if recipe.model == "auto":
        raise RecipeError(
            "`model: auto` is not for meta-learning: there are many tasks",
            where="model",
            expected="a model by its name",
            remedy="`tunewell rank` compares models on one task",
        )


class _Work:
    """One job at work in its locked folder."""

    def __init__(
        self, place: str, path: str, settings: Settings, recipe: Recipe, tasks: list[Task], roles: dict[str, str],
        notices: list[str], folder: RunFolder, echo: Echo, progress: bool,
    ) -> None:  # fmt: skip
        import torch

        from tunewell.meta.draw import Body, Tokens
        from tunewell.models.load import load_encoder, window
        from tunewell.stages.keys import model_key
        from tunewell.stages.prepare import length_asked
        from tunewell.train.tune import use_bf16

        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        self.settings, self.recipe, self.tasks, self.roles = settings, recipe, tasks, roles
        self.notices, self.folder, self.echo, self.progress = notices, folder, echo, progress
        self.teach = method(settings.method)
        torch.manual_seed(recipe.seed)  # a pooler that the base model lacks is drawn
        encoder = load_encoder(recipe.model, recipe.revision, recipe.trust_remote_code)
        limit = window(encoder.model, encoder.tokenizer)
        asked = length_asked(recipe, limit)
        self.tokenizer, self.drawn = encoder.tokenizer, encoder.drawn
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = encoder.model
        self.body: Body = Body(model.to(device), bf16=use_bf16(recipe.bf16))
        length = asked or _usual_length(tasks, encoder.tokenizer, limit)
        self.tokens: dict[str, list[Tokens]] = {role: [] for role in ("learn", "select", "report")}
        for task in tasks:
            self.tokens[roles[task.name]].append(Tokens(task, encoder.tokenizer, length, device))
        source = Path(place).expanduser()
        data = file_hash(source) if source.exists() else place
        keys = {k: getattr(recipe, k) for k in KEYS if k not in ("output_dir", "overwrite_output_dir", "lang")}
        keys |= {"bf16": self.body.bf16, "max_length": length}
        budget = ("keep", "probes", "probe_files")
        learning = {k: v for k, v in keys.items() if k not in (*budget, "threads")}
        self.key = fingerprint("meta", data, model_key(path, recipe.revision), settings.key(), learning)
        self.chosen_key = fingerprint(self.key, {k: keys[k] for k in budget} if recipe.keep else None)

    def begin(self, command: str) -> None:
        """The environment, and what was asked for; a half-done job with other settings begins anew."""
        import shutil

        from tunewell.stages.environment import environment

        write_whole(self.folder / "environment.json", json.dumps(environment(command), indent=1) + "\n")
        asked = {**asdict(self.settings), **self.recipe.model_dump(mode="json", include=set(KEYS))}
        write_whole(self.folder / "settings.json", json.dumps(asked, indent=1, ensure_ascii=False) + "\n")
        if self.folder.steps.get("begin") != self.key:
            shutil.rmtree(self.folder / "train", ignore_errors=True)
        self.folder.mark("begin", self.key)

    def learned(self) -> dict[str, Any]:
        """The outer loop: train/best.safetensors, the best weights on the tasks that choose; and how it went."""
        import shutil

        from safetensors.torch import save_file

        from tunewell.meta.learn import STATE, learn

        best, about_file = self.folder / "train" / "best.safetensors", self.folder / "train" / "learned.json"

        def make() -> dict[str, Any]:
            started = time.perf_counter()
            state = learn(
                self.body, self.tokens["learn"], self.tokens["select"], self.settings, seed=self.recipe.seed,
                folder=self.folder.path, echo=self.echo, progress=self.progress,
            )  # fmt: skip
            about = {
                "best_step": state.best_step,
                "history": [h.model_dump() for h in state.history],
                "seconds": time.perf_counter() - started,
            }
            write_with(best, lambda path: save_file(state.best, str(path)))
            write_whole(about_file, json.dumps(about) + "\n")
            return about

        def read() -> dict[str, Any]:
            return dict(json.loads(about_file.read_text(encoding="utf-8")))

        outputs = ["train/best.safetensors", "train/learned.json"]
        about = self.folder.step("learn", self.key, outputs, make, read)
        shutil.rmtree(self.folder / STATE, ignore_errors=True)
        return about

    def choose(self, base: dict[str, Any], best_step: int) -> float:
        """model/: what was learned, or as much of it as `keep` admits; how far it is from the base model."""
        from safetensors.torch import load_file

        from tunewell.meta.episode import Inner
        from tunewell.meta.keep import within_budget
        from tunewell.meta.learn import chosen_episodes, set_weights

        path = self.folder / "train" / "choice.json"

        def make() -> float:
            set_weights(self.body, load_file(str(self.folder / "train" / "best.safetensors")))
            alpha = 1.0
            if self.recipe.keep and best_step:
                inner = Inner(self.settings.inner_steps, self.settings.rate(self.teach.USE))
                judges = chosen_episodes(self.tokens["select"], self.settings, self.recipe.seed)
                alpha = within_budget(
                    self.body, self.tokenizer, base, self.recipe, judges, self.teach.USE, inner, self.echo
                )
            self.save()
            write_whole(path, json.dumps({"alpha": alpha}) + "\n")
            return alpha

        def read() -> float:
            return float(json.loads(path.read_text(encoding="utf-8"))["alpha"])

        return self.folder.step("choose", self.chosen_key, ["model", "train/choice.json"], make, read)

    def save(self) -> None:
        """The encoder as a plain Transformers folder; weights that were drawn for it are not part of it."""
        model: Any = self.body.model
        model._weight_conversions = []  # else old names for LayerNorm come back, see models/load.py
        weights = {k: v for k, v in model.state_dict().items() if k not in self.drawn}

        def write(path: Path) -> None:
            path.mkdir()
            model.save_pretrained(path, state_dict=weights)
            self.tokenizer.save_pretrained(path)

        write_with(self.folder / "model", write)

    def finish(self, started: float) -> MetaLearning:
        """Learn, measure, and write the record; what is done already is not repeated."""
        from tunewell.meta.learn import weights_of

        base = weights_of(self.body)
        about = self.learned()
        alpha = self.choose(base, about["best_step"])
        r = self.recipe
        probes = (r.probes, [file_hash(f) if Path(f).is_file() else f for f in r.probe_files])
        key = fingerprint(self.chosen_key, self.settings.episodes, probes, str(self.folder.path))

        def make() -> MetaLearning:
            return self.report(base, about, alpha, started)

        return self.folder.step(
            "report", key, [RECORD, "scores.json"], make, lambda: MetaLearning.load(self.folder / RECORD)
        )

    def report(self, base: dict[str, Any], about: dict[str, Any], alpha: float, started: float) -> MetaLearning:
        """Base model and learned body put to use on the reported tasks, and probed."""
        from tunewell.evaluate.statistics import mean_interval
        from tunewell.meta.learn import set_weights
        from tunewell.meta.measure import measure, uses_of, write_scores
        from tunewell.models.load import load_encoder
        from tunewell.stages.probe import embedder

        own, s = self.teach.USE, self.settings
        saved: Any = load_encoder(str(self.folder / "model")).model
        learned = {**base, **saved.state_dict(), **{k: base[k] for k in self.drawn}}
        suite = self._suite()
        uses, scores, probed = [], {}, {}
        for name, weights in (("base", base), ("meta", learned)):
            set_weights(self.body, weights)
            if suite is not None:
                self.echo(f"probe: {'base' if name == 'base' else 'learned'} model, report half")
                probed[name] = suite.measure(embedder(self.body.model, self.tokenizer))
            rows, scores[name] = measure(
                name, self.body, own, self.tokens["select"], self.tokens["report"], s,
                seed=self.recipe.seed, echo=self.echo, progress=self.progress,
            )  # fmt: skip
            uses += rows
        chosen = {(u.body, u.use): u.selection for u in uses}
        base_best, meta_best = (max(uses_of(own), key=lambda use: chosen[body, use]) for body in ("base", "meta"))
        mine = scores["meta"][own]
        gains = {use: mean_interval(mine - scores["base"][use]) for use in uses_of(own)}
        gain_best = mean_interval(scores["meta"][meta_best] - scores["base"][base_best])
        write_scores(self.folder / "scores.json", scores)
        retention = self._retention(probed)
        record = MetaLearning(
            method=s.method, title=self.teach.TITLE, paper=self.teach.PAPER, model=self.recipe.model,
            seed=self.recipe.seed, ways=s.ways, shots=s.shots, queries=s.queries, inner_steps=s.inner_steps,
            rate=s.rate(own), outer_rate=self.teach.RATE if s.outer_rate is None else s.outer_rate,
            tasks_per_step=s.tasks_per_step, steps=s.steps, best_step=about["best_step"], episodes=len(mine),
            tasks=tuple(
                FamilyTask(name=t.name, source=t.source, role=self.roles[t.name], rows=len(t.texts),
                           classes=len(t.classes), dropped=t.dropped)
                for t in self.tasks
            ),
            history=tuple(about["history"]), own=own, uses=tuple(uses), gain=gains[own], gain_best=gain_best,
            base_best=base_best, meta_best=meta_best, gain_prototypes=gains["prototypes"], retention=retention,
            keep=self.recipe.keep,
            kept=None if not self.recipe.keep or retention is None or retention.mean.value is None
            else retention.mean.value >= self.recipe.keep, alpha=alpha, notices=tuple(self.notices),
            seconds={"learn": round(about["seconds"], 1), "total": round(time.perf_counter() - started, 1)},
            output_dir=str(self.folder.path),
        )  # fmt: skip
        record.write(self.folder / RECORD)
        return record

    def _suite(self) -> Any:
        from tunewell.retention.suite import load_suite

        r = self.recipe
        if r.probes == ["none"] and not r.probe_files:
            return None
        return load_suite(r.probes, r.probe_files, half="report", seed=r.seed)

    def _retention(self, probed: dict[str, Any]) -> Retention | None:
        from tunewell.retention.forgetting import compare

        return compare(probed["base"], probed["meta"], seed=self.recipe.seed) if probed else None


def _usual_length(tasks: list[Task], tokenizer: Any, limit: int) -> int:
    """Longest input in tokens: the 99.5 % quantile of at most 20,000 texts, as runs choose it."""
    from tunewell.models.embed import encode
    from tunewell.stages.prepare import usual_length

    most = max(1, 20_000 // len(tasks))  # of each
    lengths = [
        len(ids)
        for t in tasks
        for ids in encode(tokenizer, t.texts[:most], t.pairs and t.pairs[:most], limit)["input_ids"]
    ]
    return usual_length(lengths, limit)
