"""Probes of decoders: grammar, instructions, agreement and divergence, and tasks of lm-eval."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import numpy as np
import pytest

from tunewell.errors import DataError, RecipeError
from tunewell.retention import language
from tunewell.retention.forgetting import compare, point
from tunewell.retention.language import load_language_suite
from tunewell.retention.measurement import Measurement, Measurements
from tunewell.retention.probes.agreement import agreeing, divergences, drift_of
from tunewell.retention.probes.following import CHECKS, follows, prompts
from tunewell.retention.probes.grammar import grammar, pairs
from tunewell.retention.probes.lm_eval import lm_eval_probe

# ---------------------------------------------------------------- grammar


def test_the_pairs_are_many_and_differ():
    rows = pairs()
    assert len(rows) >= 60 and len(set(rows)) == len(rows)
    assert all(good != bad for _, good, bad in rows)
    assert min(Counter(p for p, _, _ in rows).values()) >= 6


def test_halves_share_no_pair_and_hold_every_phenomenon():
    select, report = (grammar(half, 42) for half in ("select", "report"))
    assert len(select.texts) + len(report.texts) == len(pairs())
    assert set(select.texts) == set(report.texts)  # the phenomena
    assert select.items != report.items and select.chance == 0.5


def test_a_model_is_right_where_the_good_sentence_is_likelier():
    good = {g for _, g, _ in pairs()}
    probe = grammar("report", 42)

    def knows(texts):
        return np.array([1.0 if t.lstrip("\n") in good else 2.0 for t in texts])

    assert probe.arrays(knows)["right"].mean() == 1.0
    assert probe.arrays(lambda texts: -knows(texts))["right"].mean() == 0.0
    assert probe.arrays(lambda texts: np.ones(len(texts)))["right"].mean() == 0.0  # equal is not right


# ---------------------------------------------------------------- following instructions

RIGHT = [
    "Paris", "green", "The sea is deep and blue.", "Yes.", "lamp lamp lamp", "COLD", "hello, my friend!",
    "cat\ndog\nhorse", "- apple\n- pear", "7", "5", "Well, I am fine.", "I am leaving now, goodbye",
    "A stone lies in the river.", "It is cold and soft.", "It is a hot star.", '{"name": "Ann"}', "one, two, three",
    "Yes.", "No", "away", "cat", "apple fig pear", "Will it rain today?", "Bread is wonderful!", "1, 2, 3, 4, 5",
    '"Water."', "The long train left the old station at noon and took two hundred people to the coast.",
    "red and blue", "s-u-n", "April", "Dogs bark. A dog is loyal.", "Elephant", "[The Lost Key]", "Down.", "eulb",
    "1. towel\n2. hat\n3. book\n4. water", "Thank you very much.", "B", "A",
]  # fmt: skip


def test_every_prompt_has_an_answer_that_follows_it():
    items = prompts()
    assert len(items) == len(RIGHT) >= 20
    for item, answer in zip(items, RIGHT, strict=True):
        assert follows(answer, item["checks"]), item
        assert not follows("", item["checks"]) and not follows("\n", item["checks"])
        assert set(item["checks"]) <= set(CHECKS)


def test_chance_is_none_since_an_unrelated_answer_follows_little():
    """Neither the same text for all prompts nor another prompt's answer fulfils many rules."""
    items = prompts()
    fixed = "I am a helpful assistant, and I can help you with many things. What would you like to know?"
    assert np.mean([follows(fixed, i["checks"]) for i in items]) <= 0.1
    shuffled = RIGHT[7:] + RIGHT[:7]
    assert np.mean([follows(a, i["checks"]) for a, i in zip(shuffled, items, strict=True)]) <= 0.25


@pytest.mark.parametrize(
    ("text", "checks", "right"),
    [
        ("It is greener.", {"includes": ["green"]}, False),
        ("One. Two.", {"sentences": 2}, True),
        ("One. Two. Three.", {"sentences": 2}, False),
        ("```json\n{\"name\": \"Ann\"}\n```", {"json": {"name": "Ann"}}, True),
        ("name: Ann", {"json": {"name": "Ann"}}, False),
        ("fig apple pear", {"order": ["apple", "fig", "pear"]}, False),
        ("Hello", {"upper": True}, False),
        ("123", {"upper": True}, False),
    ],
)  # fmt: skip
def test_rules(text, checks, right):
    assert follows(text, checks) is right


# ---------------------------------------------------------------- agreement and divergence


def tops(p: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and log-probabilities (1, T, K) of distributions (T, V)."""
    ids = np.argsort(-p, axis=1)[:, :k]
    return ids[None].astype(np.int32), np.log(np.take_along_axis(p, ids, 1))[None].astype(np.float32)


def test_divergence_by_its_definition_and_never_above_it():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(40), 6), rng.dirichlet(np.ones(40), 6)
    exact = (p * np.log(p / q)).sum()
    nats, places = divergences(tops(p, 40), tops(q, 40))
    assert nats[0] == pytest.approx(exact, rel=1e-4) and places.tolist() == [6]
    coarse = [divergences(tops(p, k), tops(q, k))[0][0] for k in (1, 5, 20, 40)]
    assert all(0 <= c <= exact + 1e-4 for c in coarse)
    assert divergences(tops(p, 8), tops(p, 8))[0][0] == pytest.approx(0, abs=1e-6)


def test_agreement_by_hand():
    a = np.array([[[1], [2], [3], [-1]]])
    b = np.array([[[1], [5], [3], [-1]]])
    assert [x.tolist() for x in agreeing(a, b)] == [[2.0], [3.0]]


TEXTS = ["the hotel was good and the crew was rude today " * 2, "red blue green black white small large room", "one"]


def of(arrays, name: str, counted: bool) -> Measurements:
    return Measurements("report", {name: Measurement(name, name, "m", name, 0.0, counted, "same", arrays)})


@pytest.fixture(scope="module")
def speaker(tiny_decoder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return language.surprise_of(
        AutoModelForCausalLM.from_pretrained(tiny_decoder), AutoTokenizer.from_pretrained(tiny_decoder)
    )


def test_what_comes_next_is_what_the_model_says(speaker):
    import torch

    found = speaker.following(TEXTS, 6, 3)
    ids = torch.tensor([speaker.tokenizer(TEXTS[0])["input_ids"][:6]])
    with torch.no_grad():
        best = torch.log_softmax(speaker.model.eval()(input_ids=ids).logits[0], -1).topk(3)
    assert np.array_equal(found.ids[0], best.indices.numpy())
    assert np.allclose(found.logs[0], best.values.numpy(), atol=1e-5)
    n = len(speaker.tokenizer("one")["input_ids"])
    assert (found.ids[2, n:] == -1).all() and (found.ids[2, :n] >= 0).all()


@pytest.mark.parametrize("name", ["agreement", "kl"])
def test_the_base_model_agrees_with_itself_and_a_changed_one_less(speaker, name):
    import copy

    import torch

    probe = drift_of(name, TEXTS, counted=True)
    before = of(probe.arrays(speaker), name, True)
    same = compare(before, before).probes[0]
    assert same.retention.value == pytest.approx(1.0, abs=1e-6)
    other = language.surprise_of(copy.deepcopy(speaker.model), speaker.tokenizer)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(0)
        for p in other.model.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=draw))
    after = of(probe.arrays(other), name, True)
    result = compare(before, after)
    moved = result.probes[0]
    assert moved.retention.value < 0.9 and moved.counted
    assert moved.retention.low <= moved.retention.value <= moved.retention.high
    assert result.mean.value == pytest.approx(moved.retention.value)
    assert point(before, after)[0] == pytest.approx(moved.retention.value)
    if name == "kl":
        assert moved.retention.value == pytest.approx(np.exp(-moved.after.value))


# ---------------------------------------------------------------- suites


def test_names_are_checked():
    with pytest.raises(RecipeError, match="unknown probe `gramar` for a decoder") as caught:
        load_language_suite(["gramar"])
    assert "did you mean `grammar`?" in str(caught.value)
    with pytest.raises(RecipeError, match="`none` cannot be combined"):
        load_language_suite(["none", "grammar"])


def test_drift_counts_only_when_named(monkeypatch):
    monkeypatch.setattr(language, "_texts", lambda name, half, seed: tuple(TEXTS))
    suite = load_language_suite(["auto"])
    assert suite.names == language.KNOWN
    assert suite.counted().names == ("news", "posts", "grammar", "instructions")
    assert load_language_suite(["kl"]).counted().names == ("kl",)


def test_own_texts_may_not_take_a_name_that_is_taken(tmp_path):
    path = tmp_path / "grammar.txt"
    path.write_text("\n".join(f"line {i} of a text" for i in range(40)), encoding="utf-8")
    with pytest.raises(RecipeError, match="two probes are called `grammar`"):
        load_language_suite(["grammar"], [str(path)])
    with pytest.raises(DataError, match="no such file"):
        load_language_suite(["none"], [str(tmp_path / "none.txt")])


def test_a_run_measures_and_keeps(tiny_decoder, tmp_path, monkeypatch):
    """Half the pairs of a random model are right: nothing to keep there; what is measured is in the report."""
    import tunewell

    monkeypatch.setattr(language, "_texts", lambda name, half, seed: tuple(TEXTS * 4))
    path = tmp_path / "sft.jsonl"
    rows = [{"prompt": f"say {w} {i}", "completion": w} for i in range(8) for w in ("red", "blue", "one")]
    path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    run = tunewell.run(
        train=str(path), model=str(tiny_decoder), output_dir=str(tmp_path / "run"), keep=0.5, max_steps=2,
        max_new_tokens=2, generation_samples=2, bf16=False, probes="news,grammar,instructions,agreement,kl",
        average_alphas=[1.0], raise_on_gate=False, echo=lambda line: None, progress=False,
    )  # fmt: skip
    by_name = {p.name: p for p in run.retention.probes}
    assert list(by_name) == ["news", "grammar", "instructions", "agreement", "kl"]
    assert by_name["kl"].before.value == 0 and by_name["kl"].after.value >= 0
    assert by_name["grammar"].chance == 0.5 and by_name["grammar"].before.n == len(pairs()) // 2
    assert "Next token as the base model" in run.report_path.read_text(encoding="utf-8")


# ---------------------------------------------------------------- lm-eval


def test_without_the_package_the_install_line_is_told(monkeypatch):
    from tunewell.retention.probes import lm_eval

    monkeypatch.setattr(lm_eval, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="needs the package lm-eval") as caught:
        load_language_suite(["lm_eval:arc_easy"])
    assert "pip install 'tunewell[eval]'" in str(caught.value)


@pytest.fixture
def local_task(tmp_path):
    pytest.importorskip("lm_eval")
    data = tmp_path / "colours.jsonl"
    rows = [
        {"question": f"The colour number {i} is", "choices": ["red", "blue", "one"], "gold": i % 3} for i in range(8)
    ]
    data.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    task = tmp_path / "colours.yaml"
    task.write_text(
        "task: tunewell_colours\ndataset_path: json\n"
        f"dataset_kwargs:\n  data_files:\n    test: {data}\n"
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{gold}}'\n"
        "doc_to_choice: '{{choices}}'\nmetric_list:\n  - metric: acc\n    aggregation: mean\n"
        "    higher_is_better: true\n",
        encoding="utf-8",
    )
    return task


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_task_of_lm_eval_is_a_probe(local_task, speaker):
    halves = [lm_eval_probe(f"lm_eval:{local_task}", half) for half in ("select", "report")]
    assert [len(p.texts) for p in halves] == [4, 4] and halves[0].items != halves[1].items
    assert halves[0].chance == pytest.approx(1 / 3)
    right = halves[1].arrays(speaker)["right"]
    answers = speaker([f"The colour number {i} is {c}" for i in (1, 3, 5, 7) for c in ("red", "blue", "one")])
    prompts_alone = speaker([f"The colour number {i} is" for i in (1, 3, 5, 7)])
    best = (answers.reshape(4, 3) - prompts_alone[:, None]).argmin(1)
    assert right.tolist() == (best == np.array([1, 3, 5, 7]) % 3).astype(float).tolist()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
@pytest.mark.filterwarnings("ignore")
def test_tasks_that_lm_eval_does_not_know(tmp_path):
    with pytest.raises(RecipeError, match="lm-eval knows no task `no_such_task`"):
        load_language_suite(["lm_eval:no_such_task"])
    with pytest.raises(RecipeError, match="no such file"):
        load_language_suite([f"lm_eval:{tmp_path / 'none.yaml'}"])
