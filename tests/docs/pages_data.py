"""Files, tiny models and finished runs that the pages of the docs speak of."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

GOOD = ["good", "great", "lovely", "happy", "fine", "nice", "superb", "bright"]
BAD = ["bad", "awful", "broken", "sad", "poor", "late", "rude", "dirty"]
PLAIN = ["flight", "seat", "crew", "phone", "screen", "hotel", "room", "meal", "today", "with", "the", "was", "and"]
WORDS = {"positive": GOOD, "negative": BAD, "neutral": PLAIN}


def rows(n: int, seed: int = 0, labels: Iterable[str] = ("negative", "positive", "neutral")) -> list[tuple[str, str]]:
    """`n` distinct (text, label) rows; the label can be told by single words."""
    rng, found, names = random.Random(seed), dict[str, str](), list(labels)
    while len(found) < n:
        label = names[len(found) % len(names)]
        words = rng.choices(PLAIN, k=rng.randint(2, 6)) + rng.choices(WORDS[label], k=2)
        rng.shuffle(words)
        found.setdefault(" ".join(words), label)
    return list(found.items())


def table(path: str | Path, header: Iterable[str], body: Iterable[Iterable[Any]]) -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([list(header), *(list(row) for row in body)])


def json_lines(path: str, body: Iterable[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in body), encoding="utf-8")


def squad(path: str, numbers: Iterable[int]) -> None:
    """Articles as SQuAD 1.1 has them."""
    articles = []
    for i in numbers:
        context = f"The hotel has {i} rooms. The crew was nice and the meal was good."
        answer = {"text": "The crew", "answer_start": context.index("The crew")}
        count = {"text": str(i), "answer_start": context.index(str(i))}
        qas = [{"id": f"{i}a", "question": "How many rooms?", "answers": [count]},
               {"id": f"{i}b", "question": "Who was nice?", "answers": [answer]}]  # fmt: skip
        articles.append({"title": str(i), "paragraphs": [{"context": context, "qas": qas}]})
    Path(path).write_text(json.dumps({"version": "1.1", "data": articles}), encoding="utf-8")


def annotated(path: str, body: list[tuple[str, str]]) -> None:
    """An export of Label Studio: one person's answer to one question of each text."""
    tasks = []
    for i, (text, label) in enumerate(body, 1):
        answer = {"from_name": "sentiment", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
        tasks.append(
            {"id": i, "data": {"text": text}, "annotations": [{"id": i, "completed_by": 1, "result": [answer]}]}
        )
    Path(path).write_text(json.dumps(tasks), encoding="utf-8")


class Maker:
    """Prepares a folder for a page. `models`: tiny_model, tiny_decoder, tiny_t5."""

    def __init__(self, store: Path, models: dict[str, Path]) -> None:
        self.store, self.models = store, models
        self.texts = [text for text, _ in rows(160, seed=9)]
        self.files: dict[str, Callable[[str], None]] = {
            "reviews.csv": lambda path: self.reviews(path, rows(120, seed=1)),
            "new.csv": lambda path: table(path, ("review",), [(text,) for text, _ in rows(30, seed=5)]),
            "new.parquet": lambda path: self.parquet(path, ("body",), [(text,) for text, _ in rows(30, seed=5)]),
            "later.csv": lambda path: self.reviews(path, rows(60, seed=6)),
            "few.csv": lambda path: self.reviews(path, rows(260)[:40]),
            "val.csv": lambda path: self.reviews(path, rows(260)[40:70]),
            "validation.csv": lambda path: self.reviews(path, rows(260)[70:100]),
            "test.csv": lambda path: self.reviews(path, rows(260)[200:230]),
            "held_out.csv": lambda path: table(path, ("text", "label"), rows(260)[200:260]),
            "train.csv": lambda path: self.reviews(path, rows(120)),
            "news.csv": lambda path: table(path, ("text", "label"), rows(260)[:120]),
            "pool.csv": lambda path: table(path, ("review",), [(text,) for text, _ in rows(460)[260:440]]),
            "done.csv": lambda path: table(path, ("review", "label"), rows(260)[:40]),
            "big.parquet": lambda path: self.parquet(path, ("review", "stars"), rows(120)),
            "amazon.csv": lambda path: self.reviews(path, rows(60, seed=7)),
            "news.txt": lambda path: self.lines(path),
            "news-zh.txt": lambda path: self.lines(path),
            "marked.jsonl": lambda path: json_lines(
                path,
                [{"review": t, "highlighted": [int(w in GOOD + BAD) for w in t.split()]} for t, _ in rows(12, seed=3)],
            ),
            "chats.jsonl": lambda path: self.asked(path, rows(40)),
            "asked.jsonl": lambda path: self.asked(path, rows(4, seed=8)),
            "train.json": lambda path: squad(path, range(20, 50)),
            "trial.json": lambda path: squad(path, range(20, 50)),
            "dev.json": lambda path: squad(path, range(50, 60)),
            "new.jsonl": lambda path: json_lines(
                path, [{"question": "How many rooms?", "context": f"The hotel has {i} rooms."} for i in range(4)]
            ),
            "pairs.csv": lambda path: table(
                path, ("question", "answer", "fits"),
                [(f"where is the {w}", f"the {v} is here", "yes" if w == v else "no") for w, v in self.words(80)],
            ),
            "tickets.csv": lambda path: table(path, ("message", "queue"), rows(90, seed=4)),
            "suspects.csv": lambda path: table(path, ("text", "label"), rows(90)),
            "invoices.csv": lambda path: table(path, ("text", "kind"), rows(60, seed=11)),
            "reviews_new.csv": lambda path: table(path, ("body", "stars"), rows(60, seed=12)),
            "reviews_test.csv": lambda path: table(path, ("body", "stars"), rows(60, seed=13)),
            "news_test.csv": lambda path: table(path, ("text", "topic"), rows(60, seed=14)),
            "intents.csv": lambda path: table(
                path, ("text", "label", "domain"),
                [(t, y, f"d{d}") for d in range(6) for t, y in self.task(d)],
            ),
            "pool.jsonl": lambda path: self.asked(path, rows(60), kind=True),
            "few.jsonl": lambda path: self.asked(path, rows(6, seed=30), kind=True),
            "test.jsonl": lambda path: self.asked(path, rows(6, seed=31), kind=True),
        }  # fmt: skip
        self.special = {
            "pairs": {"new.csv": lambda p: table(p, ("question", "answer"), [("where is it", "it is here")] * 3)},
            "translation": {
                "pairs.csv": lambda p: table(
                    p, ("en", "de"), [(f"the room {i} was small", f"das Zimmer {i} war klein") for i in range(60)]
                ),
                "new.csv": lambda p: table(p, ("en",), [("the room was small",)] * 3),
            },
            "sequence": {
                "news.csv": lambda p: table(p, ("text", "topic"), rows(90, seed=2)),
                "reviews.csv": lambda p: table(p, ("body", "stars"), rows(90)),
                "held.csv": lambda p: table(p, ("body", "stars"), rows(60, seed=40)),
                "new.csv": lambda p: table(p, ("body",), [(t,) for t, _ in rows(10, seed=5)]),
            },
            "many-runs": {"sequence.yaml": self.sequence},
            "README": {"tasks.yaml": self.sequence},
            "meta": {"new.csv": lambda p: self.reviews(p, rows(60, seed=5))},
            "multi-label": {
                "tickets.csv": lambda p: table(
                    p, ("message", "billing", "refund", "login"),
                    [(t, int("good" in t), int("late" in t or "bad" in t), int("seat" in t)) for t, _ in rows(150)],
                )
            },
            "probe": {"tickets.csv": self.probe},
            "own-data": {"big.parquet": lambda p: self.parquet(p, ("body", "topic"), rows(120)), "shop.db": self.shop,
                         "reviews.xlsx": self.sheet, "project-7-at-2027-03-01.json": lambda p: annotated(p, rows(120))},
        }  # fmt: skip

    # ------------------------------------------------------------ files

    def reviews(self, path: str | Path, body: list[tuple[str, str]]) -> None:
        table(path, ("review", "stars"), body)

    def parquet(self, path: str, header: tuple[str, ...], body: list[Any]) -> None:
        import pandas as pd

        pd.DataFrame(body, columns=list(header)).to_parquet(path)

    def task(self, i: int) -> list[tuple[str, str]]:
        """Ninety rows of six classes, for learning from many small tasks."""
        return [(text, f"{label}{i}{'ab'[k // 3 % 2]}") for k, (text, label) in enumerate(rows(90, seed=20 + i))]

    def lines(self, path: str) -> None:
        Path(path).write_text("\n".join(self.texts), encoding="utf-8")

    def asked(self, path: str, body: list[tuple[str, str]], kind: bool = False) -> None:
        json_lines(
            path,
            [{"prompt": f"say {t}", "completion": t.split()[0], **({"kind": y} if kind else {})} for t, y in body],
        )

    def words(self, n: int) -> list[tuple[str, str]]:
        rng = random.Random(3)
        pairs = [(a, b) for a in PLAIN for b in PLAIN]
        rng.shuffle(pairs)
        return pairs[:n] + [(w, w) for w in PLAIN]

    def probe(self, path: str | Path) -> None:
        texts = [text for text, _ in rows(160, seed=1)]
        table(
            path, ("text_a", "text_b", "score"),
            [(texts[i], texts[i] if i % 2 else texts[i + 80], 5 * (i % 2)) for i in range(80)],
        )  # fmt: skip

    def shop(self, path: str) -> None:
        with sqlite3.connect(path) as db:
            db.execute("create table reviews (body text, stars text)")
            db.executemany("insert into reviews values (?, ?)", rows(120))
        db.close()

    def sheet(self, path: str) -> None:
        import openpyxl

        book = openpyxl.Workbook()
        sheet = book.create_sheet("Sheet2")
        for row in [("review", "stars"), *rows(120)]:
            sheet.append(row)
        book.save(path)

    def sequence(self, path: str) -> None:
        table("news.csv", ("text", "topic"), rows(90, seed=2))
        tasks = "  - {name: reviews, train: reviews.csv, text: review, label: stars}\n"
        tasks += "  - {name: news, train: news.csv, text: text, label: topic}\n"
        Path(path).write_text(f"strategy: auto\noutput_dir: runs/sequence\nunseen: none\ntasks:\n{tasks}")

    def recipe(self, text: str) -> None:
        """A recipe or sequence that the page shows becomes the file that its commands name."""
        name = "sequence.yaml" if "tasks:" in text else "recipe.yaml"
        if "TASKS" not in text and ("tasks:" in text or "output_dir: runs/reviews\n" in text):
            Path(name).write_text(text, encoding="utf-8")

    # ------------------------------------------------------------ a page

    def prepare(self, place: Path, page: str, text: str) -> None:
        """Put into `place`, the present folder, what the page names."""
        special = self.special.get(page, {})
        for name, make in {**self.files, **special}.items():
            if name in special or re.search(rf"(?<![\w-]){re.escape(name)}", text):
                make(name)
        if page == "tutorial":
            table("reviews.csv", ("review", "stars", "author"), [(*r, f"a{i // 3}") for i, r in enumerate(rows(120))])
        if page in ("meta", "README"):
            Path("tasks").mkdir()
            for i in range(6):
                table(f"tasks/t{i}.csv", ("text", "label"), self.task(i))
        Path("recipe.yaml").write_text(
            "train: reviews.csv\ntext: review\nlabel: stars\noutput_dir: runs/reviews\n", encoding="utf-8"
        )
        if not Path("reviews.csv").is_file():
            self.files["reviews.csv"]("reviews.csv")
        small = self.models["tiny_model"]
        for name in ("all-MiniLM-L6-v2", "splade-tiny", "multilingual-e5-small", "bert-base-uncased", "path/to/model",
                     "path/to/somebody-elses-model", "roberta-base", "distilroberta-base"):  # fmt: skip
            self.link(name, self.masked() if "roberta" in name or "splade" in name else small)
        self.link("SmolLM2-135M-Instruct", self.models["tiny_decoder"])
        self.link("Helsinki-NLP/opus-mt-en-de", self.models["tiny_t5"])
        for name in sorted(set(re.findall(r"runs/([a-z][\w-]*)", text))):
            if source := self.run(name):
                shutil.copytree(source, place / "runs" / name)
                for file in source.parent.parent.glob("*.*"):  # what it was tuned on, where the page has no other
                    if file.is_file() and not Path(file.name).exists():
                        shutil.copy2(file, file.name)

    def link(self, name: str, folder: Path) -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).symlink_to(folder)

    def masked(self) -> Path:
        """The tiny encoder under a random head for masked words."""
        folder = self.store / "masked"
        if not folder.is_dir():
            import torch
            from transformers import AutoTokenizer, BertForMaskedLM

            with torch.random.fork_rng():
                torch.manual_seed(0)
                BertForMaskedLM.from_pretrained(self.models["tiny_model"]).save_pretrained(folder)
            AutoTokenizer.from_pretrained(self.models["tiny_model"]).save_pretrained(folder)
        return folder

    def run(self, name: str) -> Path | None:
        """A finished run of that name, made the first time it is asked for."""
        import os

        import tunewell

        kinds: dict[str, dict[str, Any]] = {
            **{n: {"keep": 0.5} for n in ("reviews", "news", "topics", "tweets", "few", "a", "b", "c")},
            "pairs": {"train": "pairs.csv", "text": "question", "text_pair": "answer", "label": "fits"},
            "questions": {"train": "train.json"},
            "assistant": {"train": "chats.jsonl", "model": "SmolLM2-135M-Instruct"},
            "translate": {"train": "en-de.csv", "source": "en", "target": "de", "model": "Helsinki-NLP/opus-mt-en-de"},
        }
        if name not in kinds:
            return None
        place = self.store / name / "runs" / name
        if place.is_dir():
            return place
        before, work = Path.cwd(), self.store / name
        work.mkdir()
        os.chdir(work)
        try:
            for file in ("reviews.csv", "val.csv", "test.csv", "pairs.csv", "train.json", "chats.jsonl"):
                self.files[file](file)
            self.special["translation"]["pairs.csv"]("en-de.csv")
            for model, kind in (("all-MiniLM-L6-v2", "tiny_model"), ("SmolLM2-135M-Instruct", "tiny_decoder"),
                                ("Helsinki-NLP/opus-mt-en-de", "tiny_t5")):  # fmt: skip
                self.link(model, self.models[kind])
            keys: dict[str, Any] = {"train": "reviews.csv", "output_dir": f"runs/{name}", "max_steps": 20}
            if name in ("assistant", "translate"):
                keys |= {"generation_samples": 2, "max_new_tokens": 8, "probes": ["none"]}
            if name in ("a", "b", "c"):
                keys |= {"seed": ord(name), "validation": "val.csv", "test": "test.csv"}
            if name == "reviews":  # enough test rows for slices
                self.reviews("held.csv", rows(100, seed=40))
                keys["test"] = "held.csv"
            if name == "tweets":
                keys["task"] = "sentiment"
            tunewell.run(progress=False, echo=lambda line: None, **{**keys, **kinds[name]})
        finally:
            os.chdir(before)
        return place

    def hooks(self, page: str) -> dict[str, Callable[[], None]]:
        """What people do between two commands of a page: a piece of the command before -> what."""

        def label() -> None:
            with Path("to-label.csv").open(encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
            for row in found:
                words = {word for cell in row.values() for word in str(cell).split()}
                row["label"] = next((y for y in ("positive", "negative") if set(WORDS[y]) & words), "neutral")
            table("to-label.csv", found[0], [row.values() for row in found])

        return {"select pool.csv --n 50": label} if page == "select" else {}
