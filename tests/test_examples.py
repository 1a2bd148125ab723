"""Every example runs, on a few rows with the tiny model and without a network."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tunewell.recipe_file import load_recipe

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
TESTED = {"quickstart", "sklearn_pipeline", "your_own_probe", "pairs_regression", "chinese_reviews", "which_model",
          "ui_strings", "instructions", "question_answering", "sentiment"}  # fmt: skip


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_reviews: Any, make_pairs: Any, save_csv: Any
) -> Callable[..., Any]:
    """Runs an example in an empty folder; packaged sets are replaced by made-up ones of the same form."""
    import tunewell.data.packaged as packaged
    import tunewell.retention.suite as suites

    monkeypatch.chdir(tmp_path)
    reviews = make_reviews(160)
    texts, pairs = [text for text, _ in reviews], make_pairs(80)
    probe = save_csv(tmp_path / "similarity.csv", pairs, ("text_a", "text_b", "score"))
    real = suites.load_suite

    def suite(probes: Any, probe_files: Any, **options: Any) -> Any:
        auto = "auto" in probes
        return real(["none"] if auto else probes, [*probe_files, *([str(probe)] if auto else [])], **options)

    def demo_csv(path: str, n: int, seed: int) -> Path:
        Path(path).parent.mkdir(exist_ok=True)
        return save_csv(
            Path(path), [(label, "1", text) for text, label in reviews], ("sentiment", "confidence", "text")
        )

    monkeypatch.setattr(suites, "load_suite", suite)
    monkeypatch.setattr(packaged, "general_sentences", lambda n, seed: texts[:n])
    monkeypatch.setattr(packaged, "demo_csv", demo_csv)
    monkeypatch.setattr(packaged, "sts_pairs", lambda split: pairs)
    monkeypatch.setattr(packaged, "tweet_sentiments", lambda: make_reviews(160, ("negative", "neutral", "positive")))
    scores = {"negative": -2.5, "positive": 2.1}
    monkeypatch.setattr(
        packaged, "sentiment_scores", lambda name, allow_sdist: [(t, scores[y], "1") for t, y in reviews[:60]]
    )
    zh = [(f"{i}号{'好' if i % 2 else '差'}评", "positive" if i % 2 else "negative") for i in range(4000)]
    monkeypatch.setattr(packaged, "chinese_reviews", lambda allow_sdist: zh)

    def run(name: str, *arguments: str) -> None:
        assert load(name).main(arguments) == 0

    return run


def test_all_examples_are_tested() -> None:
    assert set(PROGRAMS) == TESTED


@pytest.mark.parametrize("name", PROGRAMS)
def test_examples_explain_themselves(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        load(name).main(["--help"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert f"python examples/{name}.py" in out
    assert "--model" in out
    assert "--limit" in out


def test_quickstart(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_rows("quickstart", "--model", str(tiny_model), "--limit", "60", "--output_dir", "out")
    out = capsys.readouterr().out
    assert "Gained\n  " in out
    assert "f1_macro: " in out
    assert "mean retention " in out
    assert out.count(": what a lovely crew\n") == 1
    assert (Path("out") / "report.html").is_file()


def test_sklearn_pipeline(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_rows("sklearn_pipeline", "--model", str(tiny_model), "--limit", "80", "--rates", "1e-6", "3e-3")
    out = capsys.readouterr().out
    assert "chosen by cross-validation: {'model__learning_rate': " in out
    assert "loaded; same answers: True" in out


def test_your_own_probe(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_rows("your_own_probe", "--model", str(tiny_model), "--limit", "60", "--probe_file", "similarity.csv")
    out = capsys.readouterr().out
    assert out.count("\n* average") + out.startswith("* average") == 1  # one candidate is chosen
    assert "average, alpha 0.5: validation" in out
    assert "Own similarity (similarity): " in out


def test_the_probe_that_is_written_by_hand_is_a_probe(tmp_path: Path) -> None:
    from tunewell.retention.probes.own_file import own_probe

    path = load("your_own_probe").write_probe(tmp_path / "runs" / "tickets.csv")
    halves = [own_probe(str(path), half, 42) for half in ("select", "report")]
    assert [probe.kind for probe in halves] == ["spearman", "spearman"]
    assert path.read_text(encoding="utf-8").count("\n") == 1 + 24 * 23 // 2


def test_pairs_regression(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_rows("pairs_regression", "--model", str(tiny_model), "--limit", "60")
    out = capsys.readouterr().out
    assert "spearman: " in out
    assert ": a cat sleeps | the market fell" in out


def test_chinese_reviews(few_rows: Any, tiny_model: Path, save_csv: Any, capsys: pytest.CaptureFixture[str]) -> None:
    # the tiny model's vocabulary is English letters and digits
    rows = [(f"{'good' if i % 2 else 'bad'} 第{i}条评论", "好评" if i % 2 else "差评") for i in range(120)]
    save_csv(Path("zh.csv"), rows)
    few_rows("chinese_reviews", "--train", "zh.csv", "--model", str(tiny_model), "--limit", "60")
    out = capsys.readouterr().out
    assert ": 房间干净,服务员很热情\n" in out
    assert 'lang="zh' in Path("runs/chinese/report.html").read_text(encoding="utf-8")


def test_which_model(
    few_rows: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWELL_CACHE", str(tmp_path / "cache"))
    few_rows("which_model", "--model", str(tiny_model), "--limit", "60", "--output_dir", "out")
    out = capsys.readouterr().out
    assert f"{tiny_model}: the only one that fits\n" in out
    assert "f1_macro on test: " in out
    assert "the ranking had expected" in out
    assert (Path("out") / "report.html").is_file()


def test_instructions(few_rows: Any, tiny_decoder: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import tunewell.data.packaged as packaged

    groups = list(load("instructions").GROUPS)
    posts = [(f"post {i} on {group}", group) for i in range(10) for group in groups]
    monkeypatch.setattr(packaged, "newsgroups", lambda part: posts)
    few_rows("instructions", "--model", str(tiny_decoder), "--limit", "40", "--max_steps", "2", "--probes", "none")
    out = capsys.readouterr().out
    assert "exact_match: " in out
    assert "bits_per_byte: " in out
    assert Path("runs/instructions/report.html").is_file()


def test_packaged_chinese_reviews_are_sampled(few_rows: Any, tmp_path: Path) -> None:
    path = load("chinese_reviews").packaged_reviews(tmp_path / "zh.csv", 100, allow_sdist=True)
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "text,label"
    assert len(lines) == 101


def squad(n: int) -> dict[str, Any]:
    """Articles as SQuAD 2.0 has them; every third question has no answer."""
    articles = []
    for i in range(n):
        context = f"The hotel has {i} rooms. The crew was nice and the meal was good."
        start, crew = context.index(str(i)), context.index("The crew")
        qas = [
            {"id": f"{i}a", "question": "How many rooms?", "answers": [{"text": str(i), "answer_start": start}]},
            {"id": f"{i}b", "question": "Who was nice?", "answers": [{"text": "The crew", "answer_start": crew}]},
            {"id": f"{i}c", "question": "Where is it?", "answers": [], "is_impossible": True},
        ]
        articles.append({"title": str(i), "paragraphs": [{"context": context, "qas": qas}]})
    return {"version": "v2.0", "data": articles}


def test_question_answering_on_squad(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.json").write_text(json.dumps(squad(20)), encoding="utf-8")
    few_rows("question_answering", "--train", "train.json", "--model", str(tiny_model), "--limit", "24")
    out = capsys.readouterr().out
    assert "f1: " in out and "overlap " in out and "no_answer_accuracy: " in out
    assert "Where is the pool? " in out
    assert (Path("runs") / "questions" / "report.html").is_file()


def test_question_answering_on_rows(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, part in (("train", range(24)), ("test", range(24, 32))):
        rows = [
            {
                "id": str(i), "question": "How is the room?", "context": f"room {i} was nice and bright",
                "answers": {"text": ["nice and bright"], "answer_start": [len(f"room {i} was ")]},
            }
            for i in part
        ]  # fmt: skip
        Path(f"{name}.jsonl").write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    few_rows(
        "question_answering", "--train", "train.jsonl", "--test", "test.jsonl", "--model", str(tiny_model),
        "--output_dir", "q",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "exact_match: " in out
    assert "no_answer_accuracy" not in out  # every question has an answer


def test_sentiment(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few_rows("sentiment", "--model", str(tiny_model), "--limit", "60", "--allow_sdist", "--output_dir", "s")
    out = capsys.readouterr().out
    assert "quadratic_kappa: " in out
    assert "own test rows" in out and "runs/amazon.csv" in out and "runs/nyt.csv" in out


def test_recipe() -> None:
    recipe = load_recipe(EXAMPLES / "recipe.yaml")
    assert recipe.keep == 0.98
    assert recipe.strategies == ("distill", "average")


def test_ui_strings(few_rows: Any, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("babel")
    pytest.importorskip("sacrebleu")
    entries = "".join(f'msgid "Light {i} of {{room}}"\nmsgstr "Luz {i} de {{room}}"\n\n' for i in range(60))
    Path("app.po").write_text('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + entries, "utf-8")
    few_rows(
        "ui_strings", "--train", "app.po", "--source", "source", "--target", "target", "--model", str(tiny_model),
        "--limit", "30", "--epochs", "1", "--samples", "4",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "chrf: " in out and "  copy of the source: " in out and "placeholders: " in out
    assert "Wrong password, try again | " in out
