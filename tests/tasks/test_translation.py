"""Translation: sacreBLEU's figures, pairs from every format, checks, and runs of an encoder-decoder and a decoder."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from tunewell.data.load import Loaded, load
from tunewell.errors import DataError, RecipeError
from tunewell.recipe import Recipe
from tunewell.tasks.generation import translation as t
from tunewell.tasks.generation.pair_checks import findings

pytest.importorskip("sacrebleu")
WRITTEN = ["the cat sat on the mat", "a dog", "there is a house on the hill there", ""]
REFERENCES = ["the cat sat on a mat", "the dog barks loudly", "there is a house on the hill", "nothing"]


@pytest.mark.parametrize(
    ("written", "references"),
    [
        (WRITTEN, REFERENCES),
        (REFERENCES, REFERENCES),
        (["x y", "z"], ["a b", "c"]),  # no match at all
        (["the cat", "dog house"], ["the mouse", "a house"]),  # no run of two words matches: smoothing
        (["a"], ["a"]),  # too short for runs of four
        (["你好世界"], ["你好，世界"]),
    ],
)
def test_figures_are_sacrebleus(written, references):
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf, signatures = t.statistics_of(written, references)
    ones = np.ones((len(written), 1))
    theirs = BLEU(tokenize=t.tokenizer_for(references)).corpus_score(written, [references]).score
    assert t.bleu_of(bleu)(ones)[0] == pytest.approx(theirs, abs=1e-9)
    theirs = CHRF(word_order=2).corpus_score(written, [references]).score
    assert t.chrf_of(chrf)(ones)[0] == pytest.approx(theirs, abs=1e-9)
    assert "nw:2" in signatures["chrf"] and "tok:" in signatures["bleu"]


def test_a_resample_is_the_corpus_score_of_its_rows():
    from sacrebleu.metrics import BLEU

    rng = np.random.default_rng(0)
    bleu, _, _ = t.statistics_of(WRITTEN, REFERENCES)
    for _ in range(5):
        rows = rng.integers(0, 4, 4)
        weights = np.bincount(rows, minlength=4).astype(float)[:, None]
        again = BLEU().corpus_score([WRITTEN[i] for i in rows], [[REFERENCES[i] for i in rows]]).score
        assert t.bleu_of(bleu)(weights)[0] == pytest.approx(again, abs=1e-9)


def test_length_ratio_and_rows_that_are_not_written():
    rows = Dataset.from_list(
        [{"text": "a", "label": "abcd"}, {"text": "b", "label": "x"}, {"text": "c", "label": "ab"}]
    )
    figures, _ = t.figures(rows, None, ["ab", "abcd"], np.array([0, 2]), "chrf")
    values = figures.measure(np.ones((3, 1)))
    assert values["length_ratio"][0] == 1.0 and figures.counts["bleu"] == 2
    assert np.isnan(values["loss"][0]) and np.isnan(figures.points[1])


def test_placeholders_kept_by_hand():
    """Four sources, three with placeholders, of which one translation keeps all; a row with no translation."""
    texts = ["Hello {name}", "%s of %s", "no placeholder", "<b>x</b>", "{a}"]
    rows = Dataset.from_list([{"text": s, "label": "target"} for s in texts])
    written = ["Olá {name}", "%s de s", "sem {x}", "<b>x<b>"]
    figures, _ = t.figures(rows, None, written, np.array([0, 1, 2, 3]), "chrf")
    assert figures.measure(np.ones((5, 1)))["placeholders"][0] == pytest.approx(1 / 3)
    assert figures.measure(np.array([[1.0], [0], [1], [1], [1]]))["placeholders"][0] == 0.5
    assert figures.counts["placeholders"] == 3
    none, _ = t.figures(rows.select([2]), None, ["x"], np.array([0]), "chrf")
    assert "placeholders" not in none.measure(np.ones((1, 1)))


@pytest.mark.parametrize(
    ("references", "name"),
    [(["Das Haus ist rot"], "13a"), (["这是一座房子"], "zh"), (["これは家です"], "char")],
)
def test_the_tokenizer_fits_the_script(references, name):
    assert t.tokenizer_for(references) == name


# ---------------------------------------------------------------- rows


def loaded(rows) -> Loaded:
    """Rows as they come from a JSONL file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.jsonl"
        path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
        return replace(load(path), source="d.jsonl")


@pytest.mark.parametrize(
    ("row", "keys", "expected"),
    [
        ({"en": "cat", "de": "Katze"}, {"source": "en", "target": "de"}, ("cat", "Katze")),
        ({"source": "cat", "target": "Katze"}, {}, ("cat", "Katze")),
        ({"translation": {"en": "cat", "de": "Katze"}}, {"source": "de", "target": "en"}, ("Katze", "cat")),
    ],
)
def test_pairs_from_every_format(row, keys, expected):
    file = loaded([row])
    rows, _, _ = t.read_pairs(file, t.columns_of(file, Recipe(**keys)), "", None)
    assert (rows[0]["text"], rows[0]["label"]) == expected


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"en": "a", "de": "b"}, {}, "cannot tell which column holds the source"),
        ({"en": "a", "de": "b"}, {"source": "en"}, "cannot tell which column holds the target"),
        ({"en": "a", "de": "b"}, {"source": "en", "target": "fr"}, "no column `fr`"),
        ({"en": "a", "de": "b"}, {"source": "en", "target": "en"}, "the same column"),
    ],
)
def test_columns_that_cannot_be_told(row, keys, message):
    with pytest.raises(DataError, match=message):
        t.columns_of(loaded([row]), Recipe(**keys))


def test_rows_without_a_side_are_counted():
    file = loaded([{"source": "a", "target": "b"}, {"source": "", "target": "b"}, {"source": "a", "target": None}])
    rows, dropped, _ = t.read_pairs(file, ("source", "target"), "", None)
    assert len(rows) == 1 and dropped == {"no source": 1, "no target": 1}


def test_two_line_aligned_files(tmp_path):
    (tmp_path / "a.en").write_text("cat\ndog\n", encoding="utf-8")
    (tmp_path / "a.de").write_text("Katze\nHund\n", encoding="utf-8")
    file = t.load_aligned(f"{tmp_path / 'a.en'},{tmp_path / 'a.de'}", load, Recipe())
    assert file.dataset[1] == {"source": "dog", "target": "Hund"}
    (tmp_path / "a.de").write_text("Katze\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 lines against 1"):
        t.load_aligned(f"{tmp_path / 'a.en'},{tmp_path / 'a.de'}", load, Recipe())
    with pytest.raises(DataError, match="no such file"):
        t.load_aligned(f"{tmp_path / 'a.en'},{tmp_path / 'b.de'}", load, Recipe())
    with pytest.raises(DataError, match="3 files"):
        t.load_aligned("a,b,c", load, Recipe())


@pytest.mark.parametrize(
    ("keys", "columns", "prefix"),
    [
        ({}, ("en", "de"), "Translate from English to German: "),
        ({"source_lang": "eng_Latn", "target_lang": "fr-FR"}, ("a", "b"), "Translate: "),
        ({"source_lang": "en_XX", "target_lang": "fr-FR"}, ("a", "b"), "Translate from English to French: "),
        ({"source_prefix": "de: "}, ("en", "de"), "de: "),
    ],
)
def test_what_a_decoder_is_told(keys, columns, prefix):
    assert t.prompt_prefix(Recipe(**keys), columns) == prefix


def test_findings_of_pairs():
    long = "a sentence of some length that is translated"
    pairs = [(long, "ein Satz von einiger Länge, der übersetzt ist")] * 4
    pairs += [
        (long, long),
        (long, "ein Satz. " * 30),
        ("hello {name}", "hallo {nom}"),
        ("%d of %s", "%s von %d"),
        ("42", "42"),
    ]
    rows = Dataset.from_list([{"text": s, "label": g, "source": "d", "row": i} for i, (s, g) in enumerate(pairs)])
    found = {f.code: f.count for f in findings({"train": rows})}
    assert found == {
        "copies": 1, "length-ratio": 1, "placeholders": 1, "duplicates": 3, "several-translations": 2,
    }  # fmt: skip


# ---------------------------------------------------------------- whole runs


def pairs(n: int) -> list[dict]:
    rng, words = random.Random(0), {"red": "rot", "blue": "blau", "green": "grün", "room": "Zimmer", "seat": "Sitz"}
    rows = []
    for i in range(n):
        chosen = rng.choices(list(words), k=3)
        rows.append({"en": f"{' '.join(chosen)} {i}", "de": f"{' '.join(words[w] for w in chosen)} {i}"})
    return rows


def run_on(folder, model, **keys):
    import tunewell

    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in pairs(48)), encoding="utf-8")
    lines: list[str] = []
    run = tunewell.run(
        **{"train": str(path), "source": "en", "target": "de", "model": str(model), "output_dir": str(folder / "run"),
           "learning_rate": 1e-2, "num_train_epochs": 2, "max_new_tokens": 16, "generation_samples": 6,
           "probes": "none", "bf16": False, **keys},
        echo=lines.append, progress=False,
    )  # fmt: skip
    return run, lines


@pytest.fixture(scope="module")
def tuned(tiny_t5, tmp_path_factory):
    return run_on(tmp_path_factory.mktemp("t5"), tiny_t5, num_beams=2)


def test_layers_computed_again_translate_the_same(tuned, tiny_t5, tmp_path):
    from safetensors.torch import load_file

    keys = {"activation_checkpointing": True, "auto_find_batch_size": True}  # there is memory enough
    run, _ = run_on(tmp_path, tiny_t5, num_beams=2, **keys)
    one, other = (load_file(str(r.model_path / "model.safetensors")) for r in (tuned[0], run))
    assert all((one[k] == other[k]).all() for k in one)


def test_an_encoder_decoder_is_tuned(tuned):
    run, lines = tuned
    assert any("translation, encoder-decoder" in line for line in lines)
    assert any("not in the report for answers" in line for line in lines)
    assert any("signature" in line or "nw:2" in line for line in lines)
    assert run.summary.metric == "chrf" and run.summary.retention is None and run.summary.kept is None
    assert set(run.summary.baselines) == {"base-model", "copy", "memory"}
    base = next(b for b in run.baselines if b.name == "base-model").evaluation
    assert run.metrics["loss"].value < base.metrics["loss"].value
    assert run.metrics["bleu"].n == 6 and run.metrics["loss"].n == run.evaluation.n > 6
    assert "nw:2" in run.report_path.read_text(encoding="utf-8")


def test_the_loss_is_what_transformers_computes(tiny_t5):
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from tunewell.tasks.generation.writers import Seq2SeqWriter

    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5).eval()
    writer = Seq2SeqWriter(model, AutoTokenizer.from_pretrained(tiny_t5), 64)
    rows = [writer.encode(t.pair_messages(p["en"], p["de"], ""))._asdict() for p in pairs(3)]
    assert all(r["ended"] for r in rows)
    batch = writer.collate(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        ours = writer.loss(model(**batch), labels).mean().item()
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.item()
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_saved_translations_are_plain_transformers(tuned):
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    run, _ = tuned
    model = AutoModelForSeq2SeqLM.from_pretrained(run.model_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model_path)
    inputs = tokenizer("red room 3", return_tensors="pt")
    out = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=16, num_beams=2
    )
    assert run.predict(["red room 3"]) == [tokenizer.decode(out[0], skip_special_tokens=True).strip()]


def test_keep_is_held_along_the_base_models_own_translations(tiny_t5, tmp_path):
    run, lines = run_on(tmp_path, tiny_t5, keep=0.01, probes="auto", generation_samples=2, learning_rate=1e-4)
    assert sum("the base model translates" in line for line in lines) == 2  # a half each, once
    probes = {p.name: p for p in run.retention.probes}
    assert list(probes) == ["agreement", "kl"] and probes["agreement"].counted and not probes["kl"].counted
    assert run.retention.mean.value == pytest.approx(min(1, probes["agreement"].after.value))
    assert run.summary.kept is not None and "base-writes-report" in (run.dir / "steps.json").read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source_lang": "pt", "keep": 0.9}, "general text is English, and this model reads `pt`"),
        ({"probes": ["topics"]}, "unknown probe `topics` for an encoder-decoder"),
        ({"source_lang": "pt", "probes": ["kl"]}, "`kl` reads English sentences"),
        ({"probes": ["none", "kl"]}, "`none` cannot be combined"),
    ],
)
def test_probes_that_do_not_fit_are_refused(tiny_t5, tmp_path, keys, message):
    with pytest.raises(RecipeError, match=message):
        run_on(tmp_path, tiny_t5, **{"probes": "auto", **keys})


def test_keep_is_refused_where_nothing_is_known_yet(tiny_model, tmp_path):
    with pytest.raises(RecipeError, match="an encoder that is to learn to write"):
        run_on(tmp_path, tiny_model, keep=0.9, probes="auto")


def test_a_decoder_translates_by_prompt(tiny_decoder, tmp_path):
    run, lines = run_on(tmp_path, tiny_decoder, num_train_epochs=1)
    assert any("translation, decoder" in line for line in lines)
    task = json.loads((run.dir / "task.json").read_text(encoding="utf-8"))
    assert task["prefix"] == "Translate from English to German: "
    audit = json.loads((run.dir / "audit.json").read_text(encoding="utf-8"))
    assert "Translate from English to German: " in audit["sample"][0]["text"]
    assert len(run.predict(["red room"])) == 1


def test_a_recurrent_decoder_is_tuned_saved_and_read_again(tiny_bergamot, tmp_path):
    """The same way through as for the packaged model: locate, base, tuning, beam search, saving, prediction."""
    from transformers import AutoModelForSeq2SeqLM

    run, lines = run_on(tmp_path, tiny_bergamot, num_beams=2, num_train_epochs=3, evals_per_epoch=1)
    assert any("translation, encoder-decoder" in line for line in lines)
    assert any("not in the report for answers" in line for line in lines)
    base = next(b for b in run.baselines if b.name == "base-model").evaluation
    assert run.metrics["loss"].value < base.metrics["loss"].value
    model = AutoModelForSeq2SeqLM.from_pretrained(run.model_path)
    assert type(model).__name__ == "BergamotForConditionalGeneration" and model.generation_config.num_beams == 2
    assert model.lm_head.weight is model.encoder.embed_tokens.weight
    from tunewell.tasks.generation.task import load_writer

    assert run.predict(["red room 3"]) == load_writer(run.dir).predict(["red room 3"])


@pytest.mark.parametrize("keys", [{"strategy": "lora", "lora_rank": 4}, {"strategy": "freeze", "freeze": "last_1"}])
def test_a_part_of_an_encoder_decoder_is_tuned(tiny_t5, tmp_path, keys):
    from safetensors.torch import load_file

    run, _ = run_on(tmp_path, tiny_t5, num_train_epochs=1, generation_samples=2, **keys)
    base, ours = load_file(tiny_t5 / "model.safetensors"), load_file(run.model_path / "model.safetensors")
    assert base.keys() == ours.keys()
    moved = {name for name in base if not torch.equal(base[name], ours[name])}
    linear = {name for name in base if name.endswith(("q.weight", "k.weight", "v.weight", "o.weight", "wi.weight"))}
    above = {name for name in base if name.startswith(("decoder.block.1.", "decoder.final"))}
    assert moved == (linear if keys["strategy"] == "lora" else above)


def test_an_encoder_becomes_both_halves(tiny_model, tmp_path):
    from transformers import EncoderDecoderModel

    run, lines = run_on(tmp_path, tiny_model, num_train_epochs=1)
    assert any("translation, encoder" in line for line in lines)
    assert isinstance(EncoderDecoderModel.from_pretrained(run.model_path), EncoderDecoderModel)
    assert len(run.predict(["red room"])) == 1
