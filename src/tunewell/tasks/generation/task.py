"""Written answers as tasks: instruction tuning of decoders; translation by decoders and encoder-decoders.

The two share how rows are encoded, learnt, written and compared. What is particular to each stands in
`instructions` and `translation`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.tasks.base import FOR_CLASSES, REWRITES, refuse_strategies
from tunewell.tasks.generation import instructions, kept, pair_checks, translation
from tunewell.tasks.generation.models import auto_class, config_of, kind_of, load_base, window_of
from tunewell.tasks.generation.writers import CausalWriter, Decoding, Encoded, Likelihood, Seq2SeqWriter, Writer

if TYPE_CHECKING:
    from tunewell.evaluate.answers import Figures
    from tunewell.recipe import Recipe
    from tunewell.results import CheckReport, Estimate, Evaluation
    from tunewell.stages.job import Job
    from tunewell.stages.prepare import Prepared
    from tunewell.tasks.base import Inputs, TokenLoss

LONGEST = 1024  # tokens of a row by default
LONGEST_TARGET = 256
LOOKED_AT = 2000  # rows whose lengths decide max_length
BASE = "cache/base-answers.json"
ROLE = "a language-model head"


@dataclass(frozen=True)
class Generation:
    """The interface of `tasks.base.Task` for text-generation and translation (`pairs`)."""

    name: str
    title: str
    pipeline: str
    pairs: bool
    keeps_by: tuple[str, ...] = ("average",)
    defaults: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------ rows

    def prepare(self, recipe: Recipe, *, echo: Callable[[str], None]) -> Prepared:
        from datasets import Features, Value

        from tunewell.data.columns import Columns
        from tunewell.data.load import load
        from tunewell.evaluate.answers import headline
        from tunewell.tasks.rows import load_files, prepare_rows
        from tunewell.tasks.spec import TaskSpec

        known = translation.HEADLINES if self.pairs else instructions.HEADLINES
        lower = instructions.LOWER
        spec = TaskSpec(self.name, metric=headline(recipe.metric, known, self.name, lower))

        def open_file(path: str) -> Any:
            if self.pairs:
                return translation.load_aligned(path, lambda p: load(p, encoding=recipe.encoding), recipe)
            return load(path, encoding=recipe.encoding)

        files = load_files(recipe, open_file)
        read: Any
        extra: str | None = None
        if self.pairs:
            first, second = translation.columns_of(files["train"], recipe)

            def read(file: Any) -> Any:
                # for a decoder the prefix becomes part of its prompt later, when the model is known
                return translation.read_pairs(file, translation.columns_of(file, recipe), "", recipe.group)
        else:
            found, names = instructions_format(files["train"], recipe)
            echo(f"data: read as {found}")
            first, second = names[0], names[-1]
            extra = "input" if found == "Alpaca" and "input" in files["train"].dataset.column_names else None

            def read(file: Any) -> Any:
                from tunewell.tasks.generation.conversations import conversations

                return conversations(file, recipe)

        text, number = Value("string"), Value("int64")
        kinds = {"text": text, "label": text, "messages": text, "group": text, "row": number, "source": text}
        return prepare_rows(
            recipe,
            files,
            read,
            spec=spec,
            columns=Columns(first, extra, (second,), recipe.group, self.name, False, None),
            features=Features(kinds),
            needs="a source and a target" if self.pairs else "a question and an answer of the assistant",
            echo=echo,
        )

    def kind(self, job: Job) -> str:
        return f", {kind_of(config_of(job.recipe, job.model_path))}"

    def max_length(self, job: Job) -> int:
        return self._lengths(job)[0]

    def _lengths(self, job: Job) -> tuple[int, int]:
        """Longest input and longest target: the recipe's, else the 99.5 % quantile of training rows."""
        from tunewell.stages.prepare import length_asked, long_row, usual_length

        recipe = job.recipe
        limit = window_of(config_of(recipe, job.model_path), job.tokenizer)
        asked = length_asked(recipe, limit)
        rows = job.splits["train"]
        some = rows.select(range(min(LOOKED_AT, len(rows))))
        writer = self._writer(job, None, limit, limit)
        encoded = [writer.encode(m) for m in self.messages(job, some)]
        usual = usual_length([len(e.ids) for e in encoded], min(limit, LONGEST))
        target = long_row([len(e.labels) for e in encoded])
        return asked or usual, recipe.max_target_length or min(LONGEST_TARGET, max(8, target))

    def preflight(self, job: Job) -> None:
        from tunewell.errors import ModelError, RecipeError
        from tunewell.extras import need
        from tunewell.tasks.generation.translation import MEASURES

        recipe, kind = job.recipe, self._kind(job)
        if self.pairs:
            need("generate", f"task: {self.name}", modules=MEASURES)
        for key in ("loss", "class_weight", "label_smoothing_factor"):
            if getattr(recipe, key) != type(recipe).model_fields[key].default:
                raise RecipeError(
                    f"`{key}` does not go with {self.name}", where=key, expected="cross-entropy of tokens; leave it out"
                )
        if not self.pairs and kind != "decoder":
            raise ModelError(
                f"is an {kind}, not a decoder",
                where=recipe.model,
                expected="a decoder such as SmolLM2-135M-Instruct",
                remedy="--model SmolLM2-135M-Instruct",
            )
        refuse_strategies(job, FOR_CLASSES, "needs labels or sentence embeddings")
        if kind != "decoder":
            refuse_strategies(job, REWRITES, f"asks the base model in words, which an {kind} does not follow")
        if (recipe.keep or recipe.keep_worst) and not kept.measurable(job, kind):
            why = (
                f"general text is English, and this model reads `{kept.source_of(job)}`"
                if kind == "encoder-decoder"
                else "an encoder that is to learn to write has nothing yet that could be kept"
            )
            raise RecipeError(
                f"`keep` cannot be promised: {why}",
                where="keep",
                expected="`probe_files` with pairs of your own, or a recipe without keep"
                if kind == "encoder-decoder"
                else "an encoder-decoder, a decoder, or a recipe without keep",
            )
        if kind == "decoder" and not job.tokenizer.is_fast:
            raise ModelError(
                "has no fast tokenizer, which tells the characters of each token",
                where=recipe.model,
                expected="a model with tokenizer.json",
            )

    def check(self, job: Job, *, alone: bool = False) -> CheckReport:
        from tunewell.tasks.checking import check_texts

        columns = job.prepared.columns
        languages = pair_checks.languages_of(job.recipe, (columns.text, columns.label[0]))
        own = pair_checks.findings(job.splits, languages) if self.pairs else []
        audit = self._encoded(job)[2]
        own += instructions.findings({} if self.pairs else job.splits, audit)
        roles = {"source" if self.pairs else "prompt": columns.text, "target": ", ".join(columns.label)}
        return check_texts(job, own, roles, None)

    # ------------------------------------------------------------ the model

    def _kind(self, job: Job) -> Any:
        return kind_of(config_of(job.recipe, job.model_path))

    def _prefix(self, job: Job) -> str:
        columns = job.prepared.columns
        if not self.pairs:
            return ""
        if self._kind(job) != "decoder":
            return job.recipe.source_prefix or ""
        return translation.prompt_prefix(job.recipe, (columns.text, columns.label[0]))

    def messages(self, job: Job, rows: Any) -> list[list[dict[str, Any]]]:
        """The conversations of some rows; a decoder is told what to do with a source."""
        out = [json.loads(m) for m in rows["messages"]]
        if self.pairs and self._kind(job) == "decoder":
            prefix = self._prefix(job)
            for messages in out:
                messages[0]["content"] = prefix + messages[0]["content"]
        return out

    def _writer(self, job: Job, model: Any, longest: int, target: int, *, bf16: bool = False) -> Writer:
        recipe = job.recipe
        return make_writer(
            model if model is not None else _Config(config_of(recipe, job.model_path), job.tokenizer),
            job.tokenizer,
            decoder=self._kind(job) == "decoder",
            max_length=longest,
            max_target_length=target,
            decoding=Decoding.of(recipe),
            prefix=self._prefix(job),
            langs=(recipe.source_lang, recipe.target_lang),
            batch_size=recipe.per_device_eval_batch_size,
            bf16=bf16,
        )

    def writer(self, job: Job, model: Any, *, bf16: bool = False) -> Writer:
        """A model of this run, ready to write."""
        return self._writer(job, model, job.max_length, self._target_length(job), bf16=bf16)

    def _target_length(self, job: Job) -> int:
        return job.recipe.max_target_length or self._lengths(job)[1]

    def fresh_model(self, job: Job) -> Any:
        return load_base(job.recipe, job.model_path, self._kind(job), job.tokenizer)

    def base_model(self, job: Job) -> Any:
        return self.fresh_model(job)

    def load_tuned(self, job: Job, folder: Path) -> Any:
        from tunewell.models.heads import load_saved

        return load_saved(auto_class(self._kind(job)), folder, ROLE)[0]

    def measurable(self, job: Job) -> bool:
        return kept.measurable(job, self._kind(job))

    def watchable(self, job: Job) -> bool:
        return bool(self._kind(job) == "decoder")

    def suite(self, job: Job, half: str) -> Any:
        return kept.suite_of(self, job, half, self._kind(job))

    def probed(self, job: Job, model: Any, *, bf16: bool = False) -> Any:
        return kept.asked(self, job, model, self._kind(job), bf16=bf16)

    # ------------------------------------------------------------ tuning

    def _encoded(self, job: Job) -> tuple[list[Encoded], np.ndarray, dict[str, Any]]:
        from tunewell.tasks.generation.audit import encode_rows

        writer = self.writer(job, None)
        rows = job.splits["train"]
        return encode_rows(writer, rows, self.messages(job, rows), job.recipe.overlength)

    def inputs(self, job: Job) -> Inputs:
        from datasets import Dataset

        from tunewell import processes
        from tunewell.results import write_whole
        from tunewell.tasks.base import Inputs
        from tunewell.tasks.generation.audit import highlighted, inputs_of, sentence
        from tunewell.tasks.generation.learning import token_loss

        encoded, _, audit = self._encoded(job)
        if processes.rank() == 0:
            write_whole(job.folder / "audit.json", json.dumps(audit, ensure_ascii=False, indent=1) + "\n")
        job.echo(sentence(audit))
        colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        job.echo("audit: a row, what is learnt marked:\n" + highlighted(audit["sample"], colour=colour))
        writer = self.writer(job, None)
        longest = max(len(e.ids) for e in encoded)

        def tokens(model: Any) -> TokenLoss:
            whole = "anchor" in job.recipe.strategies  # compares whole logits, which the fast way never makes
            return token_loss(model, writer, packing=job.recipe.packing, whole=whole, echo=job.echo)

        return Inputs(Dataset.from_dict(inputs_of(encoded)), writer.collate, writer.loss, longest, tokens)

    # ------------------------------------------------------------ answers

    def _likelihood(self, job: Job, writer: Writer, split: str) -> Likelihood:
        return writer.likelihood([writer.encode(m) for m in self.messages(job, job.splits[split])])

    def _place(self, job: Job, split: str) -> np.ndarray:
        """The rows on which answers are written: a seeded sample."""
        n, most = len(job.splits[split]), job.recipe.generation_samples
        most = most if split == "test" else max(1, most // 2)
        return np.sort(np.random.default_rng(job.recipe.seed).permutation(n)[:most])

    def _written(self, job: Job, writer: Writer, split: str) -> tuple[list[str], np.ndarray]:
        rows = job.splits[split].select(self._place(job, split))
        return writer.write([m[:-1] for m in self.messages(job, rows)])

    def _figures(self, job: Job, split: str, likelihood: Any, written: Any, ended: Any = None) -> Figures:
        rows, place, metric = job.splits[split], self._place(job, split), job.spec.metric
        if self.pairs:
            return translation.figures(rows, likelihood, written, place, metric)[0]
        return instructions.figures(rows, likelihood, written, ended, place, metric)

    def _writes_to_validate(self, job: Job) -> bool:
        return job.spec.metric != "token_accuracy"

    def validate(self, job: Job, model: Any) -> float:
        return self._validation(job, self.writer(job, model, bf16=job.bf16), n_boot=1).headline.value or 0.0

    def validation(self, job: Job, model: Any) -> Evaluation:
        return self._validation(job, self.writer(job, model), n_boot=500)

    def _validation(self, job: Job, writer: Writer, *, n_boot: int) -> Evaluation:
        """Without writing where the headline metric does not need it."""
        from tunewell.evaluate.answers import evaluation

        writes = self._writes_to_validate(job)
        likelihood = None if writes and n_boot == 1 else self._likelihood(job, writer, "validation")
        written, ended = self._written(job, writer, "validation") if writes else (None, None)
        figures = self._figures(job, "validation", likelihood, written, ended)
        return evaluation(figures, split="validation", metric=job.spec.metric, seed=job.recipe.seed, n_boot=n_boot)

    def finish(self, job: Job, model: Any) -> None:
        """The model's own settings for writing would contradict the recipe's."""
        decoding = Decoding.of(job.recipe)
        for key, value in {"length_penalty": None, **decoding.options()}.items():
            setattr(model.generation_config, key, value)

    def describe(self, job: Job) -> dict[str, Any]:
        columns, recipe = job.prepared.columns, job.recipe
        return {
            "spec": job.spec.to_dict(),
            "columns": {"source": columns.text, "input": columns.text_pair, "target": columns.label[0]},
            "decoder": self._kind(job) == "decoder",
            "max_length": job.max_length,
            "max_target_length": self._target_length(job),
            "prefix": self._prefix(job),
            "langs": [recipe.source_lang, recipe.target_lang],
            "decoding": dataclasses.asdict(Decoding.of(recipe)),
            "base_model": recipe.model,
        }

    # ------------------------------------------------------------ baselines and evaluation

    def baselines(self, job: Job) -> None:
        """The base model as it is, on test; the others need no model and are made with the evaluation."""
        from tunewell.folder import fingerprint
        from tunewell.recipe import keys_of
        from tunewell.results import write_whole

        def make() -> None:
            started = time.perf_counter()
            writer = self.writer(job, self.fresh_model(job))
            likelihood = self._likelihood(job, writer, "test")
            written, ended = self._written(job, writer, "test")
            answers = {
                "likelihood": [part.tolist() for part in likelihood],
                "written": written,
                "ended": ended.tolist(),
                "seconds": time.perf_counter() - started,
            }
            write_whole(job.folder / BASE, json.dumps(answers, ensure_ascii=False))
            others = ["copy of the source", "translation memory"] if self.pairs else ["answer to the nearest prompt"]
            job.echo("baselines: " + ", ".join(["base model as it is", *others]))

        keys = {key: getattr(job.recipe, key) for key in keys_of("answers")}
        inputs = fingerprint(job.keys.data, job.recipe.seed, keys)
        job.folder.step("baselines", inputs, [BASE], make, lambda: None)

    def base(self, baselines: dict[str, Estimate]) -> Estimate | None:
        return baselines.get("base-model")

    def _baselines(self, job: Job) -> list[Any]:
        from tunewell.tasks.generation.memory import Memory
        from tunewell.tasks.records import Baseline

        rows = job.splits["test"].select(self._place(job, "test"))
        kept = json.loads((job.folder / BASE).read_text(encoding="utf-8"))
        likelihood = Likelihood(*(np.array(part, dtype=np.float64) for part in kept["likelihood"]))
        ended = np.array(kept["ended"], dtype=bool)

        def baseline(name: str, title: str, written: list[str], seconds: float, *more: Any) -> Baseline:
            figures = self._figures(job, "test", more[0] if more else None, written, more[1] if more else None)
            return Baseline(name, title, figures, written, seconds)

        out = [baseline("base-model", "base model as it is", kept["written"], kept["seconds"], likelihood, ended)]
        started = time.perf_counter()
        train = job.splits["train"]
        memory = Memory(list(train["text"]), list(train["label"]), job.recipe.seed)
        recalled = memory.recall(list(rows["text"]))
        seconds = time.perf_counter() - started
        if self.pairs:
            out.append(baseline("copy", "copy of the source", list(rows["text"]), 0.0))
            out.append(baseline("memory", "translation memory", recalled, seconds))
        else:
            out.append(baseline("nearest", "answer to the nearest prompt", recalled, seconds))
        return out

    def evaluate(self, job: Job) -> Evaluation:
        from tunewell.tasks.records import SAMPLES, write_evaluation, write_samples, write_table

        writer = self.writer(job, self.load_tuned(job, job.folder / "model"))
        likelihood = self._likelihood(job, writer, "test")
        written, ended = self._written(job, writer, "test")
        place = self._place(job, "test")
        job.echo(f"evaluate: {len(written):,} of {len(job.splits['test']):,} test rows answered")
        baselines = self._baselines(job)
        held = self._validation(job, writer, n_boot=2000)
        tuned = write_evaluation(job, self._figures(job, "test", likelihood, written, ended), held, baselines)
        rows = job.splits["test"].select(place)
        write_table(
            job.folder / "predictions.csv",
            ["row", "source", "text", "label", "prediction", "base_prediction", "ended"],
            (
                [r["row"], r["source"], r["text"], r["label"], text, base, bool(end)]
                for r, text, base, end in zip(rows, written, baselines[0].answers, ended, strict=True)
            ),
        )
        samples = [
            {
                "where": f"{r['source']}:{r['row']}",
                "input": r["text"],
                "reference": r["label"],
                "answers": [text or "∅", base or "∅"],
            }
            for r, text, base in list(zip(rows, written, baselines[0].answers, strict=True))[:SAMPLES]
        ]
        note = ""
        if self.pairs:
            signatures = translation.figures(job.splits["test"], None, written, place, job.spec.metric)[1]
            note = "; ".join(f"{name}: {text}" for name, text in signatures.items())
            job.echo(f"evaluate: {note}")
        write_samples(job.folder / "samples.json", ["tuned", "base"], samples, note)
        return tuned

    def evaluate_file(self, path: Path, data: str, options: dict[str, Any]) -> Evaluation:
        from datasets import Dataset

        from tunewell.data.load import load
        from tunewell.errors import DataError
        from tunewell.evaluate.answers import evaluation
        from tunewell.predict import read_task
        from tunewell.recipe import Recipe
        from tunewell.tasks.generation.conversations import conversations

        described = read_task(path) or read_task(path.parent) or {}
        label = options.get("label")
        known = described.get("columns", {})
        keys = {"encoding": options.get("encoding", "auto")}
        source, target = options.get("text") or known.get("source"), (label[0] if label else known.get("target"))
        file = load(data, encoding=keys["encoding"])
        if self.pairs or (source != target and not known.get("input")):
            keys |= {"source": source, "target": target}
        recipe = Recipe(**{k: v for k, v in keys.items() if v})
        if self.pairs:
            made, _, _ = translation.read_pairs(file, translation.columns_of(file, recipe), "", None)
        else:
            made, _, _ = conversations(file, recipe)
        if not made:
            raise DataError("no row with a question and an answer", where=data, expected="at least one")
        rows = Dataset.from_list(made)
        writer = load_writer(path)
        messages = [json.loads(m) for m in rows["messages"]]
        if self.pairs and writer.shift:
            for conversation in messages:
                conversation[0]["content"] = described.get("prefix", "") + conversation[0]["content"]
        likelihood = writer.likelihood([writer.encode(m) for m in messages])
        written, ended = writer.write([m[:-1] for m in messages])
        place = np.arange(len(rows))
        metric = described["spec"]["metric"]
        if self.pairs:
            figures = translation.figures(rows, likelihood, written, place, metric)[0]
        else:
            figures = instructions.figures(rows, likelihood, written, ended, place, metric)
        return evaluation(figures, split="test", metric=metric, seed=options.get("seed", 42))


@dataclass
class _Config:
    """Stands in for a model where rows are only encoded."""

    config: Any
    tokenizer: Any

    def __post_init__(self) -> None:
        if getattr(self.config, "decoder_start_token_id", None) is None:  # an encoder that becomes a decoder
            self.config.decoder_start_token_id = self.tokenizer.cls_token_id


def instructions_format(loaded: Any, recipe: Recipe) -> tuple[str, tuple[str, ...]]:
    from tunewell.tasks.generation.conversations import format_of

    return format_of(loaded, recipe)


def make_writer(
    model: Any,
    tokenizer: Any,
    *,
    decoder: bool,
    max_length: int,
    max_target_length: int,
    decoding: Decoding,
    prefix: str,
    langs: tuple[str | None, str | None],
    batch_size: int,
    bf16: bool = False,
) -> Writer:
    """The writer for a model."""
    from tunewell.tasks.generation.rendering import ensure_template

    common: dict[str, Any] = {
        "max_length": max_length, "decoding": decoding, "batch_size": batch_size, "bf16": bf16,
    }  # fmt: skip
    if decoder:
        ensure_template(tokenizer)
        return CausalWriter(model, tokenizer, **common)
    for name, code in (("src_lang", langs[0]), ("tgt_lang", langs[1])):
        if code and hasattr(tokenizer, name):
            setattr(tokenizer, name, code)
    return Seq2SeqWriter(
        model, tokenizer, **common, max_target_length=max_target_length, prefix=prefix, target_lang=langs[1]
    )


def load_writer(path: Path, *, batch_size: int = 16) -> Writer:
    """A run folder of text-generation or translation, or a plain folder of a model that writes.

    Raises:
        ModelError: no such folder, or no language-model head.
    """
    from transformers import AutoConfig

    from tunewell.models.heads import load_saved
    from tunewell.models.load import load_part
    from tunewell.predict import read_task

    folder = path / "model" if (path / "model" / "config.json").is_file() else path
    described = read_task(path if folder != path else path.parent) or {}
    config = load_part(AutoConfig.from_pretrained, str(path), str(folder), "config")
    decoder = kind_of(config) == "decoder"
    model, tokenizer = load_saved(auto_class("decoder" if decoder else "encoder-decoder"), folder, ROLE)
    ours = described.get("spec", {}).get("name") in ("text-generation", "translation")
    known: dict[str, Any] = described if ours else {}
    langs = known.get("langs") or [None, None]
    prefix = known.get("prefix", "")
    writer = make_writer(
        model,
        tokenizer,
        decoder=decoder,
        max_length=known.get("max_length", min(LONGEST, window_of(config, tokenizer))),
        max_target_length=known.get("max_target_length", LONGEST_TARGET),
        decoding=Decoding(**known.get("decoding", {})),
        prefix="" if decoder else prefix,
        langs=(langs[0], langs[1]),
        batch_size=batch_size,
    )
    writer.source = str(folder)
    writer.text_column = known.get("columns", {}).get("source")
    writer.text_pair_column = known.get("columns", {}).get("input")
    if decoder and prefix:
        writer.ask = lambda text: [{"role": "user", "content": prefix + text}]
    return writer


DECODER = "SmolLM2-135M-Instruct"
GENERATION = Generation(
    "text-generation",
    "Instruction tuning: answers written by a decoder",
    "text-generation",
    False,
    defaults={
        "model": DECODER,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 16,
        "num_train_epochs": 2.0,
    },
)
TRANSLATION = Generation(
    "translation",
    "Translation by an encoder-decoder or a decoder",
    "translation",
    True,
    defaults={"model": DECODER, "per_device_eval_batch_size": 16},
)
