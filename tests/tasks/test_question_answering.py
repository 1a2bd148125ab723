"""Question answering: official scores, windows, spans, the threshold, rows of every format, and a whole run."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from tunewell.data.load import Loaded, load
from tunewell.errors import DataError, RecipeError
from tunewell.recipe import Recipe
from tunewell.tasks.question_answering.overlap import Overlap
from tunewell.tasks.question_answering.rows import answers_of, canonical, locate, resolve
from tunewell.tasks.question_answering.score import exact, f1, is_chinese, scores, units
from tunewell.tasks.question_answering.spans import Found, Span, best_spans, best_threshold, describe
from tunewell.tasks.question_answering.windows import Window, place, windows

# ---------------------------------------------------------------- scores


@pytest.mark.parametrize(
    ("prediction", "references", "em", "f"),
    [
        ("the Eiffel Tower", ["Eiffel Tower"], 1.0, 1.0),  # articles do not count
        ("Eiffel-Tower!", ["eiffel tower"], 0.0, 0.0),  # punctuation goes without leaving a space
        ("in the year 1889", ["1889"], 0.0, 0.5),  # 1 of 3 words, 1 of 1
        ("a cat and a dog", ["the dog", "cat and dog"], 1.0, 1.0),  # the best reference counts
        ("cat cat dog", ["cat dog dog"], 0.0, 2 / 3),  # a word counts as often as it occurs in both
        ("", [], 1.0, 1.0),  # unanswerable, nothing answered
        ("something", [], 0.0, 0.0),
        ("", ["something"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),  # nothing is left of either: the script takes the question as unanswerable
        ("the", ["cat"], 0.0, 0.0),
    ],
)
def test_scores_are_squads(prediction, references, em, f):
    assert scores(prediction, references) == pytest.approx((em, f))


@pytest.mark.parametrize(
    ("prediction", "reference", "em", "f"),
    [
        ("1963年", "1963年", 1.0, 1.0),
        ("于1963年", "1963年", 0.0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),  # 于 | 1963 | 年 against 1963 | 年
        ("《红楼梦》", "红楼梦", 1.0, 1.0),  # punctuation does not count
        ("中国北京", "北京中国", 0.0, 0.5),  # the longest common run is two characters of four
        ("上海", "北京", 0.0, 0.0),
        ("NBA总决赛", "nba 总决赛", 0.0, 1.0),  # exact match keeps the space, units do not
    ],
)
def test_chinese_is_scored_by_characters_as_cmrc_does(prediction, reference, em, f):
    assert exact(prediction, reference, chinese=True) == em
    assert f1(prediction, reference, chinese=True) == pytest.approx(f)


def test_which_rows_are_chinese():
    assert is_chinese("范廷颂枢机（，），圣名保禄·若瑟")
    assert not is_chinese("The 范 family")
    assert not is_chinese("1234")
    assert units("在 1964年，John Smith") == ["在", "1964", "年", "john", "smith"]


def test_the_loss_of_a_span_by_hand():
    """Two tokens of three are the row's own: uniform logits over them cost ln 2 nats, however far it is padded."""
    from types import SimpleNamespace

    import torch

    from tunewell.tasks.question_answering.task import span_loss

    start = torch.tensor([[0.0, 0.0, 7.0], [0.0, 0.0, 0.0]], requires_grad=True)
    end = torch.tensor([[0.0, 0.0, 7.0], [0.0, 0.0, 0.0]])
    losses = span_loss(SimpleNamespace(start_logits=start, end_logits=end), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    assert losses.tolist() == pytest.approx([np.log(2), np.log(3)])
    losses.sum().backward()
    assert start.grad[0].tolist() == pytest.approx([-0.25, 0.25, 0.0])


# ---------------------------------------------------------------- windows and spans


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_windows_cover_the_context_and_share_the_stride(tokenizer):
    context = " ".join(["hotel", "room", "crew", "seat"] * 20)
    cut = windows(tokenizer, ["was the room good"], [context], max_length=32, doc_stride=8)
    assert len(cut) > 2
    covered = sorted({span for w in cut for span in w.offsets if span})
    assert covered[0][0] == 0 and covered[-1][1] == len(context)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(covered))
    for a, b in itertools.pairwise(cut):
        shared = {s for s in a.offsets if s} & {s for s in b.offsets if s}
        assert len(shared) == 8
    assert all(len(w.ids) <= 32 for w in cut)


def test_a_long_question_leaves_room_for_the_context(tokenizer):
    cut = windows(tokenizer, ["room " * 100], ["the hotel was good"], max_length=24, doc_stride=8)
    assert any(span for w in cut for span in w.offsets)
    assert all(len(w.ids) <= 24 for w in cut)


def test_the_answer_is_found_by_its_characters(tokenizer):
    context = "the hotel was good, the crew was rude"
    start = context.index("crew was rude")
    (w,) = windows(tokenizer, ["who was rude"], [context], max_length=64, doc_stride=8)
    first, last = place(w, start, start + len("crew was rude"))
    a, b = w.offsets[first], w.offsets[last]
    assert a is not None and b is not None
    assert context[a[0] : b[1]] == "crew was rude"


def test_an_answer_that_is_not_whole_in_a_window_is_not_there():
    w = Window(0, [1, 2, 3, 4], None, [None, (5, 8), (9, 12), None])
    assert place(w, 5, 12) == (1, 2)
    assert place(w, 9, 12) == (2, 2)
    assert place(w, 4, 8) == (0, 0)
    assert place(w, 9, 15) == (0, 0)


def test_best_spans_by_hand():
    w = Window(0, [0] * 5, None, [None, (0, 1), (2, 3), (4, 5), None])
    start, end = np.array([9.0, 1, 3, 0, 9]), np.array([9.0, 0, 1, 4, 9])
    found = best_spans(w, start, end, 2, longest=2)
    # 2..3: 3 + 4 = 7; 2..2: 3 + 1 = 4; 1..3 (score 5) is too long; what lies outside the context does not count
    assert [(s.score, s.start, s.end) for s in found] == [(7.0, 2, 5), (4.0, 2, 3)]
    assert best_spans(w, np.array([0.0, 0, 0, 9, 0]), np.array([0.0, 9, 0, 0, 0]), 1, longest=2)[0].end > 0


def test_probabilities_over_spans_and_no_answer():
    found = Found((Span(2.0, 0, 3), Span(0.0, 4, 7)), null=1.0)
    always = describe(found, "the cat", None)
    assert always["prediction"] == "the"
    assert [n["text"] for n in always["nbest"]] == ["the", "cat"]
    assert sum(n["probability"] for n in always["nbest"]) == pytest.approx(1)
    maybe = describe(found, "the cat", -1.5)  # the gap is 1 - 2 = -1, above the threshold: no answer
    assert (maybe["prediction"], maybe["start"]) == ("", None)
    assert maybe["probability"] == pytest.approx(np.exp(1) / (np.exp(2) + 1 + np.exp(1)))
    assert describe(found, "the cat", -0.5)["prediction"] == "the"


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        gaps = rng.integers(-4, 5, 12).astype(float)
        answered, empty = rng.random(12), rng.integers(0, 2, 12).astype(float)

        def value(t, gaps=gaps, answered=answered, empty=empty):
            return np.where(gaps <= t, answered, empty).mean()

        best = max(value(t) for t in np.arange(-6, 6, 0.5))
        assert value(best_threshold(gaps, answered, empty)) == pytest.approx(best)


# ---------------------------------------------------------------- rows


def loaded(rows) -> Loaded:
    """Rows as they come from a JSONL file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.jsonl"
        path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
        return replace(load(path), source="data.jsonl")


@pytest.mark.parametrize(
    ("value", "start", "expected"),
    [
        ({"text": ["a", "b"], "answer_start": [1, 2]}, None, [("a", 1), ("b", 2)]),
        ([{"text": "a", "answer_start": 3}], None, [("a", 3)]),
        (['{"text": "a", "answer_start": 3}'], None, [("a", 3)]),
        ('{"text": ["a"], "answer_start": [1]}', None, [("a", 1)]),
        ("a", 4, [("a", 4)]),
        ("a", "4", [("a", 4)]),
        ("a", None, [("a", None)]),
        (["a", "b"], None, [("a", None), ("b", None)]),
        ({"text": [], "answer_start": []}, None, []),
        ("", None, []),
        (None, None, []),
        ("[sic] he said", None, [("[sic] he said", None)]),
    ],
)
def test_answers_in_every_form(value, start, expected):
    assert answers_of(value, start, "data:1") == expected


@pytest.mark.parametrize(
    ("value", "start", "message"),
    [
        ({"text": ["a", "b"], "answer_start": [1]}, None, "2 answers but 1 offsets"),
        ("a", "first", "answer_start 'first' is not a number"),
    ],
)
def test_offsets_that_do_not_fit(value, start, message):
    with pytest.raises(DataError, match=message) as caught:
        answers_of(value, start, "data.csv:7")
    assert caught.value.where == "data.csv:7"


def test_offsets_are_mended_and_lost_answers_counted():
    rows = [
        {"question": "q", "context": "a cat, a cat", "answers": "cat", "answer_start": 8},  # stands at 2 and 9
        {"question": "q", "context": "a cat", "answers": "dog", "answer_start": 2},
        {"question": " ", "context": "a cat", "answers": "cat", "answer_start": 2},
        {"question": "q", "context": "", "answers": "cat", "answer_start": 2},
        {"question": "q", "context": "a  cat", "answers": " cat", "answer_start": 2},  # spaces are no part of it
    ]
    file = loaded(rows)
    made, dropped, mended = canonical(file, resolve(Recipe(), file))
    assert [(r["label"], r["starts"]) for r in made] == [(["cat"], [9]), (["cat"], [3])]
    assert dropped == {"answer not in the context": 1, "no question": 1, "no context": 1}
    assert mended["answer not at its offset"] == 1
    assert locate("a cat", "cat", None) == (2, False)


def squad(impossible: bool = True) -> dict:
    context = "The hotel has 40 rooms."
    qas = [
        {"id": "a", "question": "How many rooms?", "answers": [{"text": "40", "answer_start": 14}] * 2},
        {"id": "b", "question": "How many pools?", "answers": [], "is_impossible": True},
    ]
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}


def test_squad_json_is_flattened(tmp_path):
    from tunewell.data.load import load

    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad()), encoding="utf-8")
    file = load(path)
    rows, _, _ = canonical(file, resolve(Recipe(), file))
    assert [(r["id"], r["label"], r["starts"]) for r in rows] == [("a", ["40", "40"], [14, 14]), ("b", [], [])]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"question": "ask"}, "no column `ask`"),
        ({"group": "autor"}, "no column `autor`"),
    ],
)
def test_columns_that_are_not_there(keys, message):
    file = loaded([{"question": "q", "context": "c", "answers": "c"}])
    with pytest.raises(DataError, match=message):
        resolve(Recipe(**keys), file)


def test_a_missing_role_is_named():
    with pytest.raises(DataError, match="cannot tell which column holds the context"):
        resolve(Recipe(), loaded([{"question": "q", "answers": "c"}]))


def test_overlap_prefers_rare_words():
    model = Overlap(["the bar is open", "the room is big", "the bar is small", "the pool is big"])
    context = "The bar is the bar. The pool was cold."
    (found,) = model.find(["Was the pool warm?"], [context])
    assert context[found.spans[0].start : found.spans[0].end] == "The pool was cold."


# ---------------------------------------------------------------- a whole run


def questions(n: int, seed: int = 0) -> list[dict]:
    import random

    rng = random.Random(seed)
    nouns, moods = ["hotel", "room", "crew", "meal", "seat", "phone"], ["good", "bad", "rude", "late", "fine", "dirty"]
    rows = []
    for i in range(n):
        pairs = [(a, rng.choice(moods)) for a in rng.sample(nouns, 3)]
        context = " , ".join(f"the {a} was {b}" for a, b in pairs) + f" today {i}"
        noun, mood = rng.choice(pairs)
        if i % 4 == 3:
            missing = next(x for x in nouns if x not in dict(pairs))
            rows.append({"question": f"{missing} ?", "context": context, "answers": {"text": [], "answer_start": []}})
        else:
            at = context.index(f"{noun} was {mood}") + len(f"{noun} was ")
            answers = {"text": [mood], "answer_start": [at]}
            rows.append({"question": f"{noun} ?", "context": context, "answers": answers})
    return rows


@pytest.fixture(scope="module")
def qa_run(tiny_model, tmp_path_factory):
    import tunewell

    folder = tmp_path_factory.mktemp("qa")
    path = folder / "qa.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in questions(60)), encoding="utf-8")
    lines: list[str] = []
    run = tunewell.run(
        train=str(path), model=str(tiny_model), output_dir=str(folder / "run"), probes="none",
        num_train_epochs=1, bf16=False, echo=lines.append, progress=False,
    )  # fmt: skip
    return run, lines


def test_the_same_weights_are_asked_once(tiny_model):
    from types import SimpleNamespace

    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    from tunewell.tasks.question_answering.found import found_on

    model = AutoModelForQuestionAnswering.from_pretrained(str(tiny_model))
    asked: list[int] = []
    model.register_forward_hook(lambda *_: asked.append(1))
    rows = Dataset.from_dict(
        {k: [r[v] for r in questions(6)] for k, v in (("text", "question"), ("text_pair", "context"))}
    )
    job = SimpleNamespace(
        recipe=Recipe(train="x.json"), splits={"test": rows, "validation": rows}, memory={}, max_length=64,
        tokenizer=AutoTokenizer.from_pretrained(str(tiny_model)),
    )  # fmt: skip
    first = found_on(job, model, "test")
    once = len(asked)
    assert found_on(job, model, "test") is first and len(asked) == once
    assert found_on(job, model, "validation") == first and len(asked) == 2 * once
    with torch.no_grad():
        model.qa_outputs.bias += torch.tensor([0.5, 0.0])
    other = found_on(job, model, "test")
    assert len(asked) == 3 * once and other[0].null == pytest.approx(first[0].null + 0.5, abs=1e-5)
    found_on(job, model, "test", bf16=True)
    assert len(job.memory) == 3


def test_a_run_answers_and_reports(qa_run):
    run, lines = qa_run
    assert any(line.startswith("task: question-answering, 2") for line in lines)
    assert run.summary.task == "question-answering" and run.summary.metric == "f1"
    assert set(run.summary.baselines) == {"overlap", "no-answer"}
    assert run.metrics["no_answer_accuracy"].n + run.metrics["has_answer_f1"].n == run.summary.test.n
    page = run.report_path.read_text(encoding="utf-8")
    assert "Answers side by side" in page and "AutoModelForQuestionAnswering" in page
    assert "pipeline_tag: question-answering" in (run.model_path / "README.md").read_text(encoding="utf-8")
    nbest = [json.loads(x) for x in (run.dir / "nbest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(nbest) == run.summary.test.n
    assert all(sum(a["probability"] for a in row["nbest"]) == pytest.approx(1) for row in nbest)


def test_predictions_stand_in_the_context(qa_run):
    run, _ = qa_run
    rows = questions(10, seed=5)
    answers = run.predictor.answers([r["question"] for r in rows], [r["context"] for r in rows])
    for row, a in zip(rows, answers, strict=True):
        if a["start"] is not None:
            assert row["context"][a["start"] : a["end"]] == a["prediction"]
    assert run.predict([r["question"] for r in rows], [r["context"] for r in rows]) == [
        a["prediction"] for a in answers
    ]


def test_predict_command_adds_answers(qa_run, tmp_path):
    from click.testing import CliRunner

    from tunewell.cli import app

    run, _ = qa_run
    path = tmp_path / "new.csv"
    path.write_text('question,context\nroom ?,"the room was good"\n,"the room was good"\n', encoding="utf-8")
    out = tmp_path / "out.csv"
    result = CliRunner().invoke(app, ["predict", str(run.dir), str(path), "-o", str(out)])
    assert result.exit_code == 0, result.output
    header, first, second = out.read_text(encoding="utf-8").splitlines()
    assert header == "question,context,prediction,probability,start,end"
    assert first.startswith("room ?,the room was good,")
    assert second == ",the room was good,,,,"


def test_evaluate_command_reads_the_same_rows(qa_run, tmp_path):
    from tunewell.run import evaluate_run

    run, _ = qa_run
    path = tmp_path / "more.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in questions(12, seed=9)), encoding="utf-8")
    result = evaluate_run(run.dir, str(path))
    assert result.metric == "f1" and result.n == 12


def test_the_same_command_repeats_nothing(qa_run):
    import tunewell

    run, _ = qa_run
    lines: list[str] = []
    again = tunewell.run(str(run.dir / "recipe.yaml"), output_dir=str(run.dir), echo=lines.append, progress=False)
    assert not any(line.startswith("tune:") for line in lines)
    assert again.summary.test == run.summary.test


def test_keep_holds_for_questions_too(tiny_model, make_reviews, tmp_path):
    import tunewell

    rng = np.random.default_rng(0)
    texts = [text for text, _ in make_reviews(80, seed=3)]
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in questions(40)), encoding="utf-8")
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"text_a": a, "text_b": b, "score": float(rng.random())} for a, b in itertools.pairwise(texts)]
    pairs.write_text("\n".join(json.dumps(r) for r in lines), encoding="utf-8")
    general = tmp_path / "general.txt"
    general.write_text("\n".join(texts), encoding="utf-8")
    run = tunewell.run(
        train=str(path), model=str(tiny_model), output_dir=str(tmp_path / "run"), probes="none", keep=0.01,
        probe_files=str(pairs), general_text=str(general), num_train_epochs=1, average_alphas=[0.5, 1.0], bf16=False,
        activation_checkpointing=True, auto_find_batch_size=True,
        echo=lambda line: None, progress=False, raise_on_gate=False,
    )  # fmt: skip
    assert run.summary.strategy == ("distill", "average")
    assert len(run.choice.candidates) == 2 and all(c.retention_mean for c in run.choice.candidates)
    assert run.retention is not None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss": "focal"}, "`loss` does not go with question-answering"),
        ({"class_weight": "balanced"}, "`class_weight` does not go with question-answering"),
        ({"metric": "accuracy"}, "unknown metric `accuracy` for question-answering"),
        ({"max_length": 4000}, "beyond the model's window"),
    ],
)
def test_keys_that_do_not_fit(keys, message, tiny_model, tmp_path):
    import tunewell

    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in questions(20)), encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        tunewell.run(
            train=str(path), model=str(tiny_model), output_dir=str(tmp_path / "run"), echo=lambda line: None, **keys
        )


def test_no_row_left_says_why(tmp_path, tiny_model):
    import tunewell

    path = tmp_path / "qa.jsonl"
    path.write_text('{"question": "q", "context": "c", "answers": "x"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"no row is left for train \(1 answer not in the context\)"):
        tunewell.run(train=str(path), model=str(tiny_model), output_dir=str(tmp_path / "run"), echo=lambda line: None)


def test_findings_of_questions():
    from tunewell.tasks.question_answering.checks import findings

    row = {"text": "q", "text_pair": "c", "source": "d", "row": 1}
    rows = Dataset.from_list([
        {**row, "label": ["c"], "starts": [0], "moved": 1}, {**row, "label": [], "starts": [], "moved": 0}
    ])  # fmt: skip
    other = Dataset.from_list([
        {**row, "label": ["c"], "starts": [0], "moved": 0}, {**row, "text_pair": "new", "label": [], "moved": 0}
    ])  # fmt: skip
    found = findings({"train": rows, "test": other}, {"train": [0], "test": []}, 30)
    counts = {(f.code, f.split): f.count for f in found}
    assert counts == {
        ("conflicting-answers", "train"): 2,
        ("answer-cut-away", "train"): 1,
        ("answer-offset", "train"): 1,
        ("shared-contexts", "train/test"): 1,
    }
    (moved,) = [f for f in found if f.code == "answer-offset"]
    assert moved.examples[0].note == "'c' taken at 0"


def test_the_check_tells_of_moved_answers(tmp_path, tiny_model):
    """An answer that stands two characters further on than its offset says, in a file of 20."""
    from tunewell.recipe_file import load_recipe
    from tunewell.run import check_only

    rows = questions(20)
    planted = next(r for r in rows if r["answers"]["text"])
    planted["answers"]["answer_start"] = [s + 2 for s in planted["answers"]["answer_start"]]
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    report = check_only(load_recipe(None, train=str(path), model=str(tiny_model)))
    assert sum(f.count for f in report.findings if f.code == "answer-offset") == 1


def test_shared_data_is_read(tmp_path):
    import os

    root = os.environ.get("TUNEWELL_DATA_ROOT")
    if not root or not (Path(root) / "cmrc2018").is_dir():
        pytest.skip("needs TUNEWELL_DATA_ROOT")
    from tunewell.data.load import load

    file = load(Path(root) / "cmrc2018" / "trial.json")
    rows, dropped, _ = canonical(file, resolve(Recipe(), file))
    assert len(rows) + sum(dropped.values()) == 1002
    assert all(r["text_pair"][s : s + len(t)] == t for r in rows for t, s in zip(r["label"], r["starts"], strict=True))
