"""What tuning changed: distances, CKA's interval, early answers and the map against cases that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tunewell
from tunewell.cli import app
from tunewell.explain.drift import cka, decided_from, drift, plane, probe, weight_distances
from tunewell.explain.inside import look_inside
from tunewell.predict import Predictor
from tunewell.retention.probes.drift import debiased_cka


def test_weight_distances_by_hand() -> None:
    import torch

    base = {
        "embeddings.word.weight": torch.tensor([3.0, 4.0]), "encoder.layer.0.a": torch.tensor([1.0]),
        "encoder.layer.0.b": torch.tensor([0.0]), "encoder.layer.11.a": torch.tensor([2.0]),
        "pooler.weight": torch.tensor([1.0]), "embeddings.position_ids": torch.tensor([0, 1]),
    }  # fmt: skip
    tuned = {name: w.clone() for name, w in base.items()}
    tuned["embeddings.word.weight"][0] += 1
    tuned["encoder.layer.0.b"][0] += 0.5
    tuned["pooler.weight"][0] += 2
    found = weight_distances(base, tuned)
    assert found[0] == pytest.approx(1 / 5)
    assert found[1] == pytest.approx(0.5)
    assert found[12] == 0.0
    assert found[-1] == pytest.approx(np.sqrt((1 + 0.25 + 4) / (25 + 1 + 4 + 1)))


def test_cka_has_the_jackknifes_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6))
    y = x + rng.normal(size=(40, 6))
    found = cka(x, y, groups=5)
    assert found.value == debiased_cka(x, y)
    parts = [debiased_cka(x[np.arange(40) % 5 != g], y[np.arange(40) % 5 != g]) for g in range(5)]
    error = np.sqrt(4 / 5 * np.sum((np.array(parts) - np.mean(parts)) ** 2))
    assert found.value - found.low == pytest.approx(1.959964 * error)
    same = cka(x, x)
    assert (same.value, same.low) == (pytest.approx(1.0), pytest.approx(1.0))


def test_when_answers_are_made_by_hand() -> None:
    """Three layers, three texts: the first always says 1, the second turns twice, the third at the end."""
    answers = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    shares, stays = decided_from(np.eye(2)[answers])
    assert shares.tolist() == pytest.approx([2 / 3, 1 / 3, 1.0])
    assert stays.tolist() == [0, 2, 2]


def test_the_plane_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    base, tuned = rng.normal(size=(30, 5)) * [3, 2, 1, 1, 1], rng.normal(size=(30, 5)) + 1
    x, y, share = plane(base, tuned)
    theirs = PCA(2).fit(np.concatenate([base, tuned]))
    assert share == pytest.approx(theirs.explained_variance_ratio_)
    assert np.abs(np.concatenate([x, y])) == pytest.approx(np.abs(theirs.transform(np.concatenate([base, tuned]))))


def test_a_probe_reads_what_can_be_read() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b"] * 30
    states = rng.normal(size=(60, 4))
    states[::2, 0] += 6
    found = probe(states, labels, seed=1)
    assert found is not None and found.value > 0.95 and found.low < found.value
    assert probe(states, ["a"] * 60, seed=1) is None
    assert probe(states, ["a"] * 58 + ["b"] * 2, seed=1) is None


def test_states_and_early_answers_are_the_models(tiny_predictor: Predictor, texts: list[str]) -> None:
    import torch

    found = look_inside(tiny_predictor.model, tiny_predictor.tokenizer, texts, max_length=64, head=True, batch_size=3)
    assert found.pooled.shape == (3, 4, 32)
    assert found.early is not None and found.entropy is not None
    with torch.inference_mode():
        for i, text in enumerate(texts):  # alone, without padding
            batch = tiny_predictor.tokenizer(text, return_tensors="pt")
            out = tiny_predictor.model(**batch, output_hidden_states=True)
            for layer, states in enumerate(out.hidden_states):
                assert found.pooled[layer, i] == pytest.approx(states[0].mean(dim=0).numpy(), abs=1e-5)
            assert found.early[-1, i] == pytest.approx(out.logits[0].numpy(), abs=1e-5)
            pooled = tiny_predictor.model.bert.pooler(out.hidden_states[1])
            assert found.early[1, i] == pytest.approx(tiny_predictor.model.classifier(pooled)[0].numpy(), abs=1e-5)
    tokens = [len(tiny_predictor.tokenizer(t)["input_ids"]) for t in texts]
    assert (found.entropy > 0).all()
    assert (found.entropy <= np.log(tokens) + 1e-5).all()


def test_a_decoder_asked_in_words_has_no_early_answers(tiny_decoder: Path, make_reviews: Any) -> None:
    """Its head writes words: read as classes, (B, T, V) logits ended the run."""
    from types import SimpleNamespace

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    spec = SimpleNamespace(pair=False, regression=False, multi_label=False)
    asked: Any = SimpleNamespace(
        model=model, tokenizer=AutoTokenizer.from_pretrained(tiny_decoder), spec=spec, max_length=48, scorer=object()
    )
    rows = [{"text": t, "label": y, "prediction": y} for t, y in make_reviews(24)]
    found = drift(model.base_model, asked, rows)
    assert [layer.decided for layer in found.layers] == [None] * 3
    assert all(layer.cka_task.value == pytest.approx(1) for layer in found.layers)


def test_the_encoder_is_run_once_however_many_layers_are_read(tiny_predictor: Predictor, texts: list[str]) -> None:
    passes = []
    handle = tiny_predictor.model.bert.encoder.layer[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        look_inside(tiny_predictor.model, tiny_predictor.tokenizer, texts, max_length=64, head=True)
    finally:
        handle.remove()
    assert len(passes) == 1, "all texts fit one batch"
    assert "forward" not in vars(tiny_predictor.model.bert), "the model is as it was"


def test_entropy_of_even_attention_is_the_logarithm(tiny_predictor: Predictor) -> None:
    import torch

    from tunewell.explain.inside import _entropy

    even = torch.full((1, 2, 4, 4), 0.25)
    even[..., 2:] = 0.0
    even[..., :2] = 0.5
    assert _entropy(even, torch.tensor([[1, 1, 0, 0]])).item() == pytest.approx(np.log(2))


def test_a_model_has_not_drifted_from_itself(tiny_predictor: Predictor, make_reviews: Any) -> None:
    rows = [{"text": t, "label": y, "prediction": y} for t, y in make_reviews(24)]
    found = drift(tiny_predictor.model.base_model, tiny_predictor, rows, [t for t, _ in make_reviews(20, seed=3)])
    assert found.weights == 0.0
    assert all(one.cka_task.value == pytest.approx(1.0) for one in found.layers)
    assert all(one.cka_general.value == pytest.approx(1.0) for one in found.layers if one.cka_general)
    assert found.layers[-1].decided == 1.0
    assert max(t.distance for t in found.texts) == pytest.approx(0.0, abs=1e-6)
    assert all(t.base == pytest.approx(t.tuned, abs=1e-3) for t in found.texts)
    assert tiny_predictor.model.config._attn_implementation == "sdpa"  # as it was


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(tiny_model: Path, make_reviews: Any, save_csv: Any, tmp_path_factory: pytest.TempPathFactory) -> tunewell.Run:
    folder = tmp_path_factory.mktemp("drift")
    return tunewell.run(
        model=str(tiny_model), train=str(save_csv(folder / "t.csv", make_reviews(120))), probes=["none"], max_steps=4,
        explain=1, bf16=False, output_dir=str(folder / "run"), echo=lambda line: None, progress=False,
    )  # fmt: skip


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["drift", *map(str, arguments)])


def test_a_run_measures_and_shows_it(run: tunewell.Run) -> None:
    found = run.drift
    assert found is not None
    assert len(found.layers) == 3
    assert found.weights > 0
    assert found.general_texts == 0  # probes: none fetches nothing
    html = run.report_path.read_text(encoding="utf-8")
    assert 'id="drift"' in html
    assert f"{100 * found.weights:.2f} %" in html


def test_the_command(run: tunewell.Run, save_csv: Any, make_reviews: Any, tmp_path: Path) -> None:
    general = save_csv(tmp_path / "g.csv", [(t,) for t, _ in make_reviews(12, seed=9)], header=("text",))
    done = command(run.dir, "--general", general, "--json", "--rows", 16)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["general_texts"] == 12
    assert len(answer["texts"]) == 16
    shown = command(run.dir, "--general", general, "--rows", 16)
    assert "embeddings" in shown.stdout and "moved most" in shown.stdout


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda run, tmp: run.dir / "model", (), "is not a finished run"),
        (lambda run, tmp: run.dir, ("--rows", "3"), "8<=x<=2000"),
        (lambda run, tmp: run.dir, ("--general", "missing.txt"), "missing.txt"),
    ],
)
def test_mistakes_exit_with_2(make: Any, options: tuple, said: str, run: tunewell.Run, tmp_path: Path) -> None:
    done = command(make(run, tmp_path), *options)
    assert done.exit_code == 2, done.output
    assert said in done.stderr and "Traceback" not in done.stderr


def test_few_general_texts(run: tunewell.Run, tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("one\ntwo\n", encoding="utf-8")
    done = command(run.dir, "--general", tmp_path / "few.txt")
    assert done.exit_code == 2
    assert "2 general texts are too few" in done.stderr
