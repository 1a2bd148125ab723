"""Every recipe of the gallery is valid, says for whom it is, and runs on made-up data of the form that it names."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunewell.recipe_file import load_recipe, load_yaml
from tunewell.sequence.spec import load_spec

FOLDER = Path(__file__).parent.parent / "examples" / "recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SLOW = {"auto", "cluster", "sequence", "tensorflow", "unlabelled-pool"}  # several tunings each


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_valid_and_introduces_itself(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [re.match(r"# (?:\w+: )?", line).group() for line in lines[:4]] == ["# ", "# For: ", "# Data: ", "# Run: "]
    command = "sequence" if name == "sequence" else "run"
    assert lines[3].startswith(f"# Run: tunewell {command} {name}.yaml")
    if command == "sequence":
        assert len(load_spec(path).tasks) == 3
    else:
        recipe = load_recipe(path)
        assert recipe.train
        assert recipe.output_dir


def test_no_two_write_to_the_same_folder() -> None:
    folders = [yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["output_dir"] for name in RECIPES]
    assert len(set(folders)) == len(RECIPES)


# ---------------------------------------------------------------- they run


def table(path: str, header: Iterable[str], rows: Iterable[Iterable[Any]], delimiter: str = ",") -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([list(header), *(list(row) for row in rows)])


def json_lines(path: str, rows: Iterable[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_reviews: Any, make_pairs: Any
) -> dict[str, Callable[[], None]]:
    """name of a recipe -> writes the files that it names into the present folder; probes are made up too."""
    import pandas as pd

    import tunewell.data.packaged as packaged
    import tunewell.retention.suite as suites

    monkeypatch.chdir(tmp_path)
    pairs, real = make_pairs(80), suites.load_suite
    table("probe.csv", ("text_a", "text_b", "score"), pairs)

    def suite(probes: Any, probe_files: Any, **options: Any) -> Any:
        auto = "auto" in probes
        return real(["none"] if auto else probes, [*probe_files, *(["probe.csv"] if auto else [])], **options)

    texts = [text for text, _ in make_reviews(160)]
    monkeypatch.setattr(suites, "load_suite", suite)
    monkeypatch.setattr(packaged, "general_sentences", lambda n, seed: texts[:n])
    two, three = make_reviews(120), make_reviews(120, ("negative", "neutral", "positive"))
    stars = {"negative": 1, "neutral": 3, "positive": 5}
    chinese = {"negative": "差评", "positive": "好评"}

    def labelled(path: str, rows: Any, header: tuple[str, str] = ("text", "label")) -> None:
        table(path, header, rows)

    def pool() -> None:
        rows = make_reviews(160)
        labelled("few.csv", rows[:40])
        labelled("val.csv", rows[40:60])
        labelled("test.csv", rows[60:80])
        table("pool.csv", ("text",), [(text,) for text, _ in rows[80:]])

    def questions() -> None:
        rows = []
        for i in range(60):
            answer = {"text": ["nice and bright"], "answer_start": [len(f"room {i} was ")]}
            rows.append({"question": "How is the room?", "context": f"room {i} was nice and bright", "answers": answer})
        json_lines("questions.jsonl", rows)

    def messages() -> None:
        turns = [(f"say {text}", text.split()[0]) for text, _ in two[:40]]
        json_lines(
            "chats.jsonl",
            (
                {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
                for asked, answer in turns
            ),
        )

    def gettext() -> None:
        entries = "".join(f'msgid "Light {i} of {{room}}"\nmsgstr "Luz {i} de {{room}}"\n\n' for i in range(60))
        Path("app.po").write_text(
            'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + entries, "utf-8"
        )

    def sequence() -> None:
        labelled("news.csv", two, ("text", "topic"))
        labelled("news_test.csv", make_reviews(160)[120:], ("text", "topic"))
        labelled("reviews.csv", [(text, stars[label]) for text, label in three], ("body", "stars"))
        labelled("tickets.csv", make_reviews(120, seed=7), ("message", "queue"))

    def parquet() -> None:
        rows = make_reviews(160)
        pd.DataFrame(rows[:120], columns=["body", "topic"]).to_parquet("big.parquet")
        pd.DataFrame(rows[120:], columns=["body", "topic"]).to_parquet("held-out.parquet")

    def customers() -> None:
        table("my-pairs.csv", ("text_a", "text_b", "score"), pairs)
        table("tickets.csv", ("message", "queue", "customer"), [(*row, f"c{i // 4}") for i, row in enumerate(two)])

    def in_chinese() -> None:  # the tiny model's vocabulary is English letters
        table("reviews.csv", ("评论", "情感"), [(f"{text} 第{i}条", chinese[y]) for i, (text, y) in enumerate(two)])
        table("pairs-zh.csv", ("text_a", "text_b", "score"), pairs)
        Path("news-zh.txt").write_text("\n".join(texts), encoding="utf-8")

    tags = {"negative": "refund|late", "neutral": "", "positive": "thanks"}
    plain = lambda: labelled("reviews.csv", two)  # noqa: E731
    return {
        "sentiment-classes": lambda: labelled("reviews.csv", [(t, stars[y]) for t, y in three], ("review", "stars")),
        "sentiment-scores": lambda: labelled(
            "scored.csv", [(t, stars[y] - 3 + len(t) / 100) for t, y in three], ("text", "score")
        ),
        "topics-keep": customers,
        "auto": plain,
        "instructions-lora": messages,
        "translation-po": gettext,
        "translation-tsv": lambda: table(
            "pairs.tsv", ("en", "de", "document"),
            [(f"the room {i} was small", f"das Zimmer {i} war klein", i // 3) for i in range(60)], "\t",
        ),
        "questions": questions,
        "few-labels": pool,
        "unlabelled-pool": pool,
        "multi-label": lambda: labelled("tickets.csv", [(t, tags[y]) for t, y in three], ("message", "tags")),
        "pairs-nli": lambda: table(
            "nli.csv", ("premise", "hypothesis", "relation"),
            [(a, b, "entailment" if float(score) else "neutral") for a, b, score in make_pairs(120)],
        ),
        "chinese": in_chinese,
        "sequence": sequence,
        "tensorflow": plain,
        "big-data": parquet,
        "cluster": plain,
    }  # fmt: skip


OTHERS = {"instructions-lora": "tiny_decoder", "translation-po": "tiny_bergamot", "translation-tsv": "tiny_t5"}
SMALLER = {"cluster": {"seeds": 2}, "instructions-lora": {"max_length": 64},
           "translation-po": {"num_beams": 2}, "translation-tsv": {"num_beams": 2},
           "sequence": {"unseen": "none", "probes": ["none"]}}  # fmt: skip
NEEDS = {"tensorflow": ("tensorflow",), "translation-po": ("babel", "sacrebleu"), "translation-tsv": ("sacrebleu",)}
HEADLINE = {"sentiment-scores": "spearman", "translation-po": "chrf", "translation-tsv": "bleu", "questions": "f1",
            "multi-label": "f1_micro", "pairs-nli": "accuracy", "instructions-lora": "token_accuracy"}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in RECIPES])
def test_it_runs(name: str, files: dict[str, Callable[[], None]], request: pytest.FixtureRequest) -> None:
    """As it stands but for the model's name, the number of steps and what `SMALLER` says."""
    import tunewell

    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    files[name]()
    keys = {"model": str(request.getfixturevalue(OTHERS.get(name, "tiny_model"))), "max_steps": 4, "explain": 0}
    if OTHERS.get(name):
        keys |= {"probes": ["none"], "generation_samples": 2, "max_new_tokens": 8}
    keys |= SMALLER.get(name, {})
    if name == "sequence":
        done = tunewell.run_sequence(str(FOLDER / "sequence.yaml"), progress=False, echo=lambda line: None, **keys)
        assert len(done.summary.matrix) == 3
        return
    run = tunewell.run(str(FOLDER / f"{name}.yaml"), progress=False, echo=lambda line: None, **keys)
    recipe = load_yaml(FOLDER / f"{name}.yaml")
    assert run.metrics[HEADLINE.get(name, "f1_macro")].value is not None
    assert run.dir == Path(recipe["output_dir"])
    assert run.report_path.is_file()
    if "keep" in recipe:
        assert run.retention is not None
        assert run.choice.keep == recipe["keep"]
    if name == "chinese":
        assert 'lang="zh' in run.report_path.read_text(encoding="utf-8")
    if name == "cluster":
        assert run.seeds is not None


def test_every_recipe_has_its_files(files: dict[str, Callable[[], None]]) -> None:
    assert sorted(files) == RECIPES
