"""Tasks beyond a few classes, each against its own cheap alternatives, on rows that the model has not seen.

- questions: SubjQA tripadvisor (train, dev, test as published) on an encoder: F1 against the sentence that shares
  most with the question and against never answering.
- chinese-questions: CMRC 2018, learned from its 1,002 trial questions by the packaged multilingual encoder; measured on
  a seeded sample (`--sample`) of the 3,219 dev questions; F1 over characters.
- intents: CLINC150 (small), 150 classes with 50 rows each.
- instructions: a decoder learns to name the topic of AG News stories, asked in words; exact match and bits per byte
  of held-out answers against the base model as it is.
- descriptions: a decoder learns to say in a sentence or two what a title of DBpedia is: open answers, on which
  `--keys '{"strategy": "sdft"}'` can be held against plain tuning.
- translation: Multi30k en → de by a decoder; chrF++ and BLEU against copying and a translation memory.

- ui-strings: Home Assistant's texts of four words or more, en → pt, by Bergamot's small model; BLEU, chrF++ and kept
  placeholders against copying, a translation memory and the model as it is. Needs no data folder.

Instructions, descriptions and translation take slices (`--rows`), since a decoder on a processor is slow.

    python benchmarks/tasks.py --data-root DATA --tasks questions chinese-questions intents ui-strings
    python benchmarks/tasks.py --data-root DATA --tasks intents --seeds 1 --keys '{"max_train_samples": 1500}'
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import child, file_of, parser, record

TOPICS = "Which of World, Sports, Business, Science and technology is this story about? Answer with the topic.\n\n"


def questions(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    splits = {"train": "train", "validation": "dev", "test": "test"}
    return {
        **{key: str(file_of(root, "subjqa_tripadvisor", split)) for key, split in splits.items()},
        "model": job["model"],
    }


def chinese_questions(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Trial as it is; of dev the articles with sampled questions, and only those questions."""
    path = folder / "dev.json"
    articles = json.loads((root / "cmrc2018" / "dev.json").read_text(encoding="utf-8"))["data"]
    questions = [qa for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    n = min(job["sample"], len(questions))
    chosen = {qa["id"] for qa in random.Random(42).sample(questions, n)}
    for article in articles:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [qa for qa in paragraph["qas"] if qa["id"] in chosen]
    path.write_text(json.dumps({"data": articles}, ensure_ascii=False), encoding="utf-8")
    return {
        "train": str(root / "cmrc2018" / "trial.json"),
        "test": str(path),
        "model": "multilingual-e5-small",
    }


def intents(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    splits = {"train": "train", "validation": "val", "test": "test"}
    return {
        **{key: str(file_of(root, "clinc150_small", split)) for key, split in splits.items()},
        "model": job["model"],
    }


def instructions(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Stories of AG News as prompts, their topics in words as answers."""
    keys = {}
    for key, split, n in (("train", "train", job["rows"]), ("test", "test", job["rows"] // 2)):
        with file_of(root, "ag_news", split).open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file][:n]
        out = [{"prompt": TOPICS + row["text"], "completion": str(row["label"])} for row in rows]
        path = folder / f"{key}.jsonl"
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in out), encoding="utf-8")
        keys[key] = str(path)
    return {**keys, "task": "text-generation", "max_new_tokens": 12}


def descriptions(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Titles as prompts, the text that stands below them as answers; those of at most 240 characters."""
    keys = {}
    for key, n in (("train", job["rows"]), ("test", job["rows"] // 2)):
        out = []
        with file_of(root, "dbpedia", key).open(encoding="utf-8") as file:
            for line in file:
                title, _, text = json.loads(line)["text"].partition("\nText:")
                title, text = title.removeprefix("Title:").strip(), " ".join(text.split())
                if 40 <= len(text) <= 240:
                    out.append({"prompt": f"Say in a sentence or two: what is {title}?", "completion": text})
                if len(out) == n:
                    break
        path = folder / f"{key}.jsonl"
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in out), encoding="utf-8")
        keys[key] = str(path)
    return {**keys, "task": "text-generation", "max_new_tokens": 64}


def translation(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    keys = {"train": ("train", job["rows"]), "validation": ("val", 40), "test": ("test_2016_flickr", 100)}
    out = {}
    for key, (split, n) in keys.items():
        with file_of(root, "multi30k", split).open(encoding="utf-8") as file:
            lines = [next(file) for _ in range(n)]
        path = folder / f"{key}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        out[key] = str(path)
    return {**out, "source": "en", "target": "de", "task": "translation", "max_new_tokens": 48}


def ui_strings(root: Path, folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """All different pairs with four words or more; whole components go to test and validation."""
    from tunewell.data.load import load

    seen: dict[tuple[str, str], str] = {}
    for row in load("homeassistant-ui").dataset:
        if row["pt"] and len(row["en"].split()) >= 4:
            seen.setdefault((row["en"].strip(), row["pt"].strip()), row["component"])
    path = folder / "ui.jsonl"
    rows = [{"en": en, "pt": pt, "component": c} for (en, pt), c in seen.items()]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    keys = {"train": str(path), "source": "en", "target": "pt", "task": "translation", "group": "component"}
    keys |= {"model": "bergamot-en-pt", "num_train_epochs": 5, "num_beams": 4, "generation_samples": 1000}
    return keys | ({"max_train_samples": job["ui_rows"]} if job["ui_rows"] else {})


KEYS = {
    "questions": questions,
    "chinese-questions": chinese_questions,
    "intents": intents,
    "instructions": instructions,
    "descriptions": descriptions,
    "translation": translation,
    "ui-strings": ui_strings,
}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One run; runs in the child process."""
    import tunewell

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        keys = KEYS[job["task"]](Path(job["root"]), folder, job) | job["keys"]
        run = tunewell.run(
            **keys, seed=job["seed"], output_dir=str(folder / "run"), progress=False,
            echo=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
        others = {
            b.name: {
                "value": b.evaluation.headline.value,
                "p": b.comparison.p_value if b.comparison else None,
                "metrics": {k: v.value for k, v in b.evaluation.metrics.items()},
            }
            for b in run.baselines
        }
        return {
            "metric": run.summary.metric,
            "metrics": {k: v.model_dump() for k, v in run.metrics.items()},
            "baselines": others,
            "retention": run.retention.mean.value if run.retention else None,
            "probes": {p.name: p.retention.value for p in run.retention.probes} if run.retention else {},
            "sdft": run.summary.sdft,
            "seconds": run.summary.seconds,
        }


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--tasks", nargs="+", default=list(KEYS), choices=list(KEYS))
    args.add_argument("--rows", type=int, default=300, help="training rows of instructions and translation")
    args.add_argument("--ui-rows", type=int, default=None, help="training rows of ui-strings at most; all by default")
    args.add_argument("--sample", type=int, default=800, help="dev questions of chinese-questions")
    args.add_argument("--keys", type=json.loads, default={}, help="further recipe keys, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    for task in options.tasks:
        for seed in options.seeds:
            job = {
                "task": task, "seed": seed, "rows": options.rows, "sample": options.sample, "keys": options.keys,
                "root": str(options.data_root), "model": options.model, "ui_rows": options.ui_rows,
            }  # fmt: skip
            row = child(__file__, job)
            record(options.output, {"benchmark": "tasks", **row})
            print(
                f"{task}, seed {seed}: tuning {row['seconds']['train']:.0f} s, in all {row['seconds']['total']:.0f} s"
            )
            for name, value in row["metrics"].items():
                others = ", ".join(
                    f"{other} {b['metrics'][name]:.4f}"
                    for other, b in row["baselines"].items()
                    if b["metrics"].get(name) is not None
                )
                if value["value"] is not None:
                    shown = f"[{value['low']:.4f}, {value['high']:.4f}]" if value["low"] is not None else ""
                    print(f"  {name:<24}{value['value']:.4f} {shown} n {value['n']}; {others}", flush=True)
            if row["retention"] is not None:
                print(f"  retention {row['retention']:.4f}", flush=True)
            if row["sdft"] is not None:
                print(f"  sdft: {json.dumps(row['sdft'])}", flush=True)


if __name__ == "__main__":
    main()
