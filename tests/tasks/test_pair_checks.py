"""Checks of pairs, each on rows that were written for it; settings of writing; keys that name languages."""

from __future__ import annotations

import pytest
from datasets import Dataset

from tunewell.errors import RecipeError
from tunewell.recipe import Recipe
from tunewell.recipe_file import load_recipe
from tunewell.tasks.generation.pair_checks import findings, languages_of, placeholders
from tunewell.tasks.generation.writers import Decoding

ENGLISH = "The device is already configured on this computer"
PORTUGUESE = "O dispositivo já está configurado neste computador"


def found(pairs, languages=(None, None)):
    rows = Dataset.from_list([{"text": s, "label": t, "source": "d", "row": i} for i, (s, t) in enumerate(pairs, 1)])
    return {f.code: f for f in findings({"train": rows}, languages)}


def test_targets_in_another_language():
    pairs = [(f"{i} {ENGLISH}", f"{PORTUGUESE} {i}") for i in range(8)]
    pairs += [("Turn it off before you go on", "Switch the device off, then continue with the next step")]
    finding = found(pairs, ("en", "pt"))["wrong-language"]
    assert finding.count == 1 and finding.examples[0].where == "d:9" and "not in pt" in finding.message
    assert "wrong-language" not in found(pairs, ("en", None)) and "wrong-language" not in found(pairs, ("pt", "pt"))


def test_a_copy_is_told_once():
    assert set(found([(ENGLISH, ENGLISH)], ("en", "pt"))) == {"copies"}


@pytest.mark.parametrize(
    ("target", "expected", "wrong"),
    [
        ("设备已经配置好了，请重新启动", "zh", False),
        ("The device is already configured", "zh", True),
        ("Hub 已经配置", "zh", False),  # foreign names within
        ("デバイスはすでに設定されています", "zh", True),
        ("Устройство уже настроено на компьютере", "pt", True),
        ("OK", "zh", False),
        ("Home Assistant", "pt", False),  # too short to tell
        ("https://example.com/a/very/long/address/in/english", "pt", False),
    ],
)
def test_scripts_and_short_texts(target, expected, wrong):
    assert ("wrong-language" in found([("some other text", target)], ("en", expected))) is wrong


def test_pairs_that_repeat_and_sources_that_are_translated_in_two_ways():
    same = found([("open", "abrir"), ("Open ", "Abrir"), ("open", "aberto"), ("open", "abrir")])
    assert same["duplicates"].count == 2 and same["several-translations"].count == 1
    assert [e.where for e in same["duplicates"].examples] == ["d:2", "d:4"]


@pytest.mark.parametrize(
    ("source", "target", "differ"),
    [
        ("Hello {name}", "Olá {name}", False),
        ("{a} of {b}", "{b}: {a}", False),  # order is free
        ("Hello {name}", "Olá {nome}", True),
        ("%s files", "ficheiros", True),
        ("%1 items", "%1 itens", False),
        ("%1 and %2", "%1 e %1", True),
        ("100% sure", "100 % certo", False),
        ("<b>Note</b>", "<b>Nota</b>", False),
        ("<b>Note</b>", "Nota", True),
        ("%(count)d left", "faltam %(conta)d", True),
        ("${user} left", "${user} saiu", False),
    ],
)
def test_placeholders(source, target, differ):
    assert (placeholders(source) != placeholders(target)) is differ


@pytest.mark.parametrize(
    ("keys", "columns", "expected"),
    [
        ({}, ("en", "pt-BR"), ("en", "pt")),
        ({}, ("source", "target"), (None, None)),
        ({"target_lang": "deu_Latn"}, ("source", "target"), (None, "de")),
        ({"source_lang": "en_XX", "target_lang": "pt_XX"}, ("a", "b"), ("en", "pt")),
    ],
)
def test_languages_of_a_recipe(keys, columns, expected):
    assert languages_of(Recipe(**keys), columns) == expected


# ---------------------------------------------------------------- how answers are written


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"temperature": 0.7}, "temperature only matters when tokens are drawn"),
        ({"top_p": 0.9, "top_k": 5}, "top_p, top_k only matters"),
        ({"do_sample": True, "num_beams": 4}, "exclude each other"),
        ({"length_penalty": 2.0}, "only matters to the beam search"),
        ({"do_sample": True, "temperature": 0}, "temperature"),
        ({"do_sample": True, "top_p": 1.5}, "top_p"),
        ({"do_sample": True, "top_k": -1}, "top_k"),
        ({"num_beams": 0}, "num_beams"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size"),
    ],
)
def test_settings_that_do_not_go_together(keys, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(None, **keys)


def test_settings_reach_generate():
    greedy = Decoding.of(Recipe()).options()
    assert greedy == {
        "do_sample": False, "num_beams": 1, "no_repeat_ngram_size": 0, "temperature": None, "top_p": None,
        "top_k": None,
    }  # fmt: skip
    beams = Decoding.of(Recipe(num_beams=4, length_penalty=0.6, no_repeat_ngram_size=3)).options()
    assert (beams["num_beams"], beams["length_penalty"], beams["no_repeat_ngram_size"]) == (4, 0.6, 3)
    drawn = Decoding.of(Recipe(do_sample=True, temperature=0.7, top_p=0.9, top_k=20, seed=5))
    assert drawn.options() | {"x": 0} == {
        "do_sample": True, "num_beams": 1, "no_repeat_ngram_size": 0, "temperature": 0.7, "top_p": 0.9, "top_k": 20,
        "x": 0,
    }  # fmt: skip
    assert drawn.seed == 5


def test_drawn_answers_are_the_same_for_the_same_seed_and_disturb_nothing(tiny_t5):
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from tunewell.tasks.generation.writers import Seq2SeqWriter

    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)

    def written(seed: int) -> list[str]:
        decoding = Decoding(max_new_tokens=12, do_sample=True, seed=seed)
        return Seq2SeqWriter(model, tokenizer, 64, decoding).predict(["red room", "blue seat"])

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = written(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert written(0) == first
    assert any(written(seed) != first for seed in range(1, 4))  # it does draw


def test_no_run_of_tokens_is_repeated(tiny_t5):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from tunewell.tasks.generation.writers import Seq2SeqWriter

    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    writer = Seq2SeqWriter(model, tokenizer, 64, Decoding(max_new_tokens=20, no_repeat_ngram_size=1, num_beams=2))
    ids = writer.prompt([{"role": "user", "content": "red room"}])
    import torch

    out = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=20, **writer.decoding.options())[0].tolist()
    body = [i for i in out[1:] if i not in (*writer.ends(), writer._pad)]
    assert len(body) == len(set(body)) > 1
