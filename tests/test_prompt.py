"""Classes as words in a gap: the logits by hand, the search by hand, a run and its folder, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tunewell
from tunewell.cli import app
from tunewell.errors import ModelError, RecipeError
from tunewell.models.prompt import load_prompted, patterned
from tunewell.tasks import verbaliser

PATTERN = "{text} the room was {mask} ."
ROWS = [(f"{'good nice' if i % 2 else 'bad rude'} crew {i}", "positive" if i % 2 else "negative") for i in range(60)]


@pytest.fixture(scope="module")
def mlm(tiny_model: Path, tmp_path_factory) -> Path:
    """The tiny model with a random head for masked words."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-mlm"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = BertForMaskedLM(BertConfig.from_pretrained(tiny_model))
        model.cls.predictions.bias.data.normal_()
        model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(mlm: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(mlm)


def test_the_pattern_stands_around_the_text(tokenizer) -> None:
    asked = patterned(tokenizer, PATTERN, pair=False, max_length=128)
    ids = asked("good crew")["input_ids"]
    words = ["[CLS]", "good", "crew", "the", "room", "was", "[MASK]", ".", "[SEP]"]
    assert asked.convert_ids_to_tokens(ids) == words


def test_a_long_text_is_cut_and_the_pattern_is_not(tokenizer) -> None:
    asked = patterned(tokenizer, PATTERN, pair=False, max_length=128)
    tokens = asked.convert_ids_to_tokens(asked("good crew " * 40, truncation=True, max_length=12)["input_ids"])
    assert tokens[1:5] == ["good", "crew", "good", "crew"]
    assert tokens[-6:] == ["the", "room", "was", "[MASK]", ".", "[SEP]"]
    assert len(tokens) == 12


def test_pairs_and_a_mask_before_the_text(tokenizer) -> None:
    asked = patterned(tokenizer, "{mask} {text} with {text_pair}", pair=True, max_length=128)
    tokens = asked.convert_ids_to_tokens(asked("good crew", "seat")["input_ids"])
    assert tokens == ["[CLS]", "[MASK]", "good", "crew", "with", "seat", "[SEP]"]


def prompted(mlm: Path, tokenizer, words: list[list[int]], **options):
    labels = [f"c{i}" for i in range(len(words))]
    return load_prompted(
        str(mlm), str(mlm), labels=labels, words=words, mask=tokenizer.mask_token_id, **options
    ).eval()  # fmt: skip


def test_logits_are_those_of_the_masked_language_model_by_hand(mlm: Path, tokenizer) -> None:
    """The head in NumPy: dense, GELU, layer norm, product with the word embeddings, bias; a class of two words."""
    import torch
    from scipy.special import erf
    from transformers import BertForMaskedLM

    vocabulary = tokenizer.get_vocab()
    words = [[vocabulary["bad"]], [vocabulary["good"], vocabulary["nice"]]]
    asked = patterned(tokenizer, PATTERN, pair=False, max_length=128)
    texts = ["good crew", "the meal was bad today", "seat"]
    batch = asked(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = prompted(mlm, tokenizer, words)(**batch).logits.numpy()
        plain = BertForMaskedLM.from_pretrained(mlm).eval()
        for i, text in enumerate(texts):
            ids = tokenizer(f"{text} the room was [MASK] .", return_tensors="pt")  # written out, one by one
            hidden = plain.bert(**ids).last_hidden_state[0].double().numpy()
            place = ids["input_ids"][0].tolist().index(tokenizer.mask_token_id)
            head = plain.cls.predictions
            w = {k: v.double().numpy() for k, v in head.state_dict().items()}
            h = hidden[place] @ w["transform.dense.weight"].T + w["transform.dense.bias"]
            h = h * 0.5 * (1 + erf(h / np.sqrt(2)))
            h = (h - h.mean()) / np.sqrt(h.var() + plain.config.layer_norm_eps)
            h = h * w["transform.LayerNorm.weight"] + w["transform.LayerNorm.bias"]
            logits = plain.bert.embeddings.word_embeddings.weight.double().numpy() @ h + w["bias"]
            expected = [logits[words[0]].mean(), logits[words[1]].mean()]
            np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-5)


def test_a_head_of_another_make_is_asked_whole(tmp_path: Path, tokenizer) -> None:
    import torch
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=2, hidden_dim=64)
        DistilBertForMaskedLM(config).save_pretrained(tmp_path / "m")
    plain = DistilBertForMaskedLM.from_pretrained(tmp_path / "m").eval()
    ids = tokenizer("good crew [MASK]", return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        found = prompted(tmp_path / "m", tokenizer, [[7], [9]])(**ids).logits[0]
        expected = plain(**ids).logits[0, 3, [7, 9]]
    torch.testing.assert_close(found, expected)


def test_masks_in_the_text_itself_are_not_the_patterns(mlm: Path, tokenizer) -> None:
    import torch

    ids = tokenizer("[MASK] good [MASK]", return_tensors="pt")
    with torch.inference_mode():
        last, first = (prompted(mlm, tokenizer, [[7], [9]], first=f)(**ids).logits for f in (False, True))
        one = tokenizer("[MASK] good [MASK]", return_tensors="pt")
        whole = load_plain(mlm)(**one).logits[0]
    torch.testing.assert_close(last[0], whole[3, [7, 9]])
    torch.testing.assert_close(first[0], whole[1, [7, 9]])


def load_plain(mlm: Path):
    from transformers import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_pretrained(mlm).eval()


# ---------------------------------------------------------------- words


def test_the_search_by_hand() -> None:
    """Word 0 is likeliest in both classes; only 1 against 2 tells all rows apart; 3 is not allowed."""
    log_p = np.log(
        [[0.60, 0.30, 0.05, 0.05], [0.50, 0.30, 0.10, 0.10], [0.60, 0.10, 0.25, 0.05], [0.70, 0.05, 0.20, 0.05]]
    )
    log_p[:, 3] = -np.inf
    targets = np.array([0, 0, 1, 1])
    assert verbaliser.search(log_p, targets, 2, k=2) == [1, 2]


def test_class_by_class_finds_what_trying_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    targets = np.repeat(np.arange(3), 20)
    log_p = rng.normal(size=(60, 30))
    for c in range(3):
        log_p[targets == c, c + 5] += 6.0
    expected = verbaliser.search(log_p, targets, 3, k=5)
    assert expected == [5, 6, 7]
    monkeypatch.setattr(verbaliser, "EXHAUSTIVE", 1)
    assert verbaliser.search(log_p, targets, 3, k=5) == expected


def test_words_by_name(tokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    assert verbaliser.by_name(tokenizer, ["seat", "meal"]) == [[vocabulary["seat"]], [vocabulary["meal"]]]
    assert verbaliser.by_name(tokenizer, ["seat", "mealtime"]) is None  # several pieces
    assert (
        verbaliser.by_name(tokenizer, ["negative", "positive"]) is None
    )  # terrible and great: not in so small a vocabulary


def test_only_whole_words_are_searched(tokenizer) -> None:
    free = verbaliser.allowed(tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert free[tokens.index("good")]
    assert not any(free[tokens.index(t)] for t in ("[MASK]", "##a", "a", "!"))


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(mlm: Path, save_csv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return tunewell.run(
        train=str(save_csv(folder / "a.csv", ROWS)), task="sentiment", model=str(mlm), strategy=["prompt"],
        pattern=PATTERN, verbaliser={"negative": ["bad"], "positive": ["good", "nice"]}, probes="none",
        num_train_epochs=2, learning_rate=1e-3, explain=0, output_dir=str(folder / "r"), progress=False,
        echo=lambda line: None,
    )  # fmt: skip


def test_zero_shot_is_a_baseline(run, mlm: Path, tokenizer) -> None:
    from tunewell.models.embed import logits

    (found,) = [b for b in run.baselines if b.name == "zero-shot"]
    vocabulary = tokenizer.get_vocab()
    words = [[vocabulary["bad"]], [vocabulary["good"], vocabulary["nice"]]]
    asked = patterned(tokenizer, PATTERN, pair=False, max_length=128)
    import csv

    with (run.dir / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = logits(prompted(mlm, tokenizer, words), asked, [r["text"] for r in rows]).argmax(1)
    right = np.mean([("negative", "positive")[a] == r["label"] for a, r in zip(answers, rows, strict=True)])
    assert found.evaluation.metrics["accuracy"].value == pytest.approx(right)


def test_the_folder_is_a_masked_language_model_that_predicts_again(run) -> None:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model, found = AutoModelForMaskedLM.from_pretrained(run.model_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    asked = AutoTokenizer.from_pretrained(run.model_path)
    ids = asked("good crew", return_tensors="pt")
    place = ids["input_ids"][0].tolist().index(asked.mask_token_id)
    vocabulary = asked.get_vocab()
    with torch.inference_mode():
        at = model.eval()(**ids).logits[0, place]
    expected = torch.stack([at[vocabulary["bad"]], at[[vocabulary["good"], vocabulary["nice"]]].mean()]).softmax(0)
    np.testing.assert_allclose(run.predict_proba(["good crew"])[0], expected.numpy(), atol=1e-5)
    assert run.predict(["bad rude crew", "good nice crew"])[0] in ("negative", "positive")


def test_the_run_tells_how_it_asks(run) -> None:
    described = json.loads((run.dir / "task.json").read_text(encoding="utf-8"))
    assert described["prompt"] == {"pattern": PATTERN, "words": {"negative": ["bad"], "positive": ["good", "nice"]}}
    card = (run.model_path / "README.md").read_text(encoding="utf-8")
    assert 'tunewell.load_run("r").predict(["some text"])' in card  # no pipeline of Transformers asks by a pattern
    assert run.training.trainable_parameters == run.training.parameters


def test_words_are_searched_where_names_tell_none(mlm: Path, save_csv, tmp_path: Path) -> None:
    said: list[str] = []
    found = tunewell.run(
        train=str(save_csv(tmp_path / "a.csv", ROWS)), model=str(mlm), strategy=["prompt"], probes="none", max_steps=2,
        explain=0, output_dir=str(tmp_path / "r"), progress=False, echo=said.append,
    )  # fmt: skip
    assert any("words searched on the training rows" in line for line in said)
    words = json.loads((found.dir / "task.json").read_text(encoding="utf-8"))["prompt"]["words"]
    assert len({w for (w,) in words.values()}) == 2


# ---------------------------------------------------------------- mistakes

PROMPT = ["--strategy", "prompt"]
GIVEN = ["--verbaliser", "negative=bad,positive=good"]
MISTAKES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no mask": (["--pattern", "{text} it was", *GIVEN], ("{mask} must stand once in it", "expected: {text}, {mask}")),
    "two masks": (["--pattern", "{mask} {text} {mask}", *GIVEN], ("{mask} must stand once", "stands 2 times")),
    "no text": (["--pattern", "it was {mask}", *GIVEN], ("{text} must stand once",)),
    "unknown place": (["--pattern", "{text} {label} {mask}", *GIVEN], ("`{label}` is no place of a pattern",)),
    "a pair's place without pairs": (["--pattern", "{text} {text_pair} {mask}", *GIVEN], ("the rows have one text",)),
    "longer than the window": (
        ["--pattern", "{text} " + "good " * 130 + "{mask}", *GIVEN], ("tokens of a window of 128",),
    ),
    "longer than max_length": (
        ["--pattern", "{text} the room was {mask}", "--max_length", "8", *GIVEN], ("tokens of a window of 8",),
    ),
    "a class without words": (["--verbaliser", "negative=bad"], ("no word for the class 'positive'",)),
    "a class that is none": (["--verbaliser", "negative=bad,pos=good,positive=good"], ("'pos' is not a class",)),
    "a word of several tokens": (
        ["--verbaliser", "negative=unhappily,positive=good"], ("'unhappily' is not one token", "verbaliser: auto"),
    ),
    "one word for two": (["--verbaliser", "negative=bad|good,positive=good"], ("share a word",)),
    "no words": (["--verbaliser", "bad,good"], ("write label=word",)),
    "with distillation": (["--strategy", "distill", *GIVEN], ("`prompt` goes with average, freeze",)),
    "more than classes": (["--task", "text-regression", "--label", "score"], ("answers with one word for one class",)),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str, mlm: Path, tmp_path: Path, save_csv, monkeypatch: pytest.MonkeyPatch) -> None:
    options, says = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    rows = [(text, label, str(i % 7 + 0.5)) for i, (text, label) in enumerate(ROWS)]
    save_csv(tmp_path / "a.csv", rows, ("text", "label", "score"))
    fixed = ["--train", "a.csv", "--model", str(mlm), "--output_dir", "r", "--probes", "none", *PROMPT]
    done = CliRunner().invoke(app, ["run", *fixed, *options])
    assert done.exit_code == 2, done.output
    for words in says:
        assert words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_model_without_the_head(tiny_model: Path, tmp_path: Path, save_csv) -> None:
    file = str(save_csv(tmp_path / "a.csv", ROWS))
    with pytest.raises(ModelError, match="has no head for masked words") as refused:
        tunewell.run(
            train=file, model=str(tiny_model), strategy=["prompt"], verbaliser="auto", output_dir=str(tmp_path / "r"),
            echo=lambda line: None,
        )  # fmt: skip
    assert "splade-tiny" in str(refused.value)


def test_keys_of_a_prompt_without_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="`pattern` belongs to `strategy: prompt`"):
        tunewell.run(train="a.csv", pattern=PATTERN)


def test_a_sequence_has_no_prompts() -> None:
    from tunewell.sequence.methods import check_names

    assert "unknown strategy `prompt`" in check_names(["prompt"], 1)[0]
