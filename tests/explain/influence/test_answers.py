"""Influence on written answers: gradients against autograd, projections against their variance, a planted topic."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import DataError, ModelError, RecipeError, RunFolderError
from tunewell.explain.influence.answers import index as index_module
from tunewell.explain.influence.answers.attribute import AnswerInfluence
from tunewell.explain.influence.answers.gradients import Moments, Pulls, adam_direction, unit
from tunewell.explain.influence.answers.methods import METHODS, cosines
from tunewell.explain.influence.answers.rows import read_answer_rows
from tunewell.explain.influence.answers.sketch import Sketch
from tunewell.explain.influence.answers.weights import BLOCK, at, last_block, weights_of
from tunewell.tasks.generation.writers import CausalWriter, Decoding, Seq2SeqWriter
from tunewell.train.trace import Adapters

ENGLISH = [("red", "room"), ("blue", "seat"), ("green", "meal"), ("black", "phone"), ("white", "hotel")]
GERMAN = [("rot", "Zimmer"), ("blau", "Sitz"), ("grün", "Essen"), ("schwarz", "Telefon"), ("weiß", "Zimmer")]


def rows_of_two_topics(n: int) -> list[dict[str, str]]:
    """English and German rows in turn, which share hardly a word."""
    out = []
    for i in range(n):
        if i % 2:
            colour, thing = GERMAN[i // 2 % 5]
            out.append({"prompt": f"das {thing} {i}", "completion": f"das {thing} war {colour}"})
        else:
            colour, thing = ENGLISH[i // 2 % 5]
            out.append({"prompt": f"say {thing} {i}", "completion": f"the {thing} was {colour}"})
    return out


def tuned_run(folder: Path, model: Path, **keys: Any) -> Path:
    from tunewell.recipe_file import load_recipe
    from tunewell.run import tune_only

    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows_of_two_topics(60)), encoding="utf-8")
    tune_only(
        load_recipe(
            train=str(path), model=str(model), output_dir=str(folder / "run"), bf16=False,
            per_device_train_batch_size=4, threads=1, monitor="off",
            **{"learning_rate": 1e-2, "num_train_epochs": 2, **keys},
        ),
        echo=lambda line: None, progress=False,
    )  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def adapted(tiny_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run tuned by LoRA on two topics."""
    return tuned_run(
        tmp_path_factory.mktemp("adapted"),
        tiny_decoder,
        strategy=["lora"],
        lora_rank=4,
        lora_rate_factor=1.0,
        num_train_epochs=6,
    )


@pytest.fixture(scope="module")
def whole(tiny_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run tuned as a whole on two topics."""
    return tuned_run(tmp_path_factory.mktemp("whole"), tiny_decoder, strategy=["plain"])


@pytest.fixture(scope="module")
def writer(tiny_decoder: Path) -> CausalWriter:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    return CausalWriter(model, AutoTokenizer.from_pretrained(tiny_decoder), 128, Decoding(max_new_tokens=8))


def conversation(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def loss_by_transformers(model: Any, row: Any) -> torch.Tensor:
    """The mean loss over the answer's tokens, as Transformers computes it from labels."""
    return model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss


# ---------------------------------------------------------------- gradients


def test_gradients_by_the_last_block_are_autograds(writer: CausalWriter) -> None:
    model, row = writer.model, writer.encode(conversation("say the word twice", "word word"))
    names = [n for n, p in model.named_parameters() if n.startswith("model.layers.1.") and p.dim() == 2]
    assert len(names) == 7
    loss = loss_by_transformers(model, row)
    parameters = dict(model.named_parameters())
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, [parameters[n] for n in names])])
    with weights_of(model) as weights:
        assert (weights.kind, weights.names) == (BLOCK, names)
        assert [n for n, p in model.named_parameters() if p.requires_grad] == names
        found = Pulls(writer, weights, None).of(row)
    np.testing.assert_allclose(found.plain, wanted.numpy(), atol=1e-6)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    assert found.tokens == sum(y != -100 for y in row.labels)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_gradients_by_merged_adapters_are_those_of_the_adapted_model(writer: CausalWriter, tiny_decoder: Path) -> None:
    """PEFT's own gradients by A and B, before merging, against ours on the merged weights."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel
    from transformers import AutoModelForCausalLM

    from tunewell.train.trace import adapters_of

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    layers = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    tuner = LoraModel(model, LoraConfig(r=3, lora_alpha=6, target_modules=layers), "default")
    torch.manual_seed(3)
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.2)
    adapters = adapters_of(model, torch.optim.SGD(model.parameters(), lr=1.0), 0, 0.0)
    assert adapters is not None
    assert adapters.scales == dict.fromkeys(layers, 2.0)
    adapters = Adapters(
        {k: {p: w.detach().clone() for p, w in v.items()} for k, v in adapters.weights.items()},
        adapters.scales, {}, 0, 0.0,
    )  # fmt: skip
    row = writer.encode(conversation("say the word twice", "word word"))
    loss = loss_by_transformers(model, row)
    leaves = [getattr(model.get_submodule(k), f"lora_{part}")["default"].weight for k in layers for part in "AB"]
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, leaves)]).numpy()
    tuner.merge_and_unload()
    merged = CausalWriter(model, writer.tokenizer, 128)
    with weights_of(model, adapters) as weights:
        assert weights.names == [f"{k}.{part}" for k in layers for part in "AB"]
        found = Pulls(merged, weights, None).of(row)
    np.testing.assert_allclose(found.plain, wanted, atol=2e-6)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    assert not any(m._forward_hooks for m in model.modules())

    # the base model taken to the same moment is the merged one
    base = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    at(base, adapters)
    for a, b in zip(base.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_stays_patched_after_an_error(writer: CausalWriter) -> None:
    with pytest.raises(RuntimeError), weights_of(writer.model):
        raise RuntimeError
    assert all(p.requires_grad for p in writer.model.parameters())
    strange = Adapters({"model.layers.9.q": {}}, {"model.layers.9.q": 1.0}, {}, 0, 0.0)
    with pytest.raises(ModelError, match="name a layer model.layers.9.q"), weights_of(writer.model, strange):
        pass
    assert all(p.requires_grad for p in writer.model.parameters())


def test_the_last_block_of_an_encoder_decoder_is_its_decoders(tiny_t5: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5).eval()
    names = [n for n, _ in last_block(model)]
    assert names and all(n.startswith("decoder.block.1.") for n in names)
    writer = Seq2SeqWriter(model, AutoTokenizer.from_pretrained(tiny_t5), 128)
    row = writer.encode(conversation("the room was red", "das Zimmer war rot"))
    loss = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss
    parameters = dict(model.named_parameters())
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, [parameters[n] for n in names])])
    with weights_of(model) as weights:
        found = Pulls(writer, weights, None).of(row)
    np.testing.assert_allclose(found.plain, wanted.numpy(), atol=1e-6)


def test_adams_direction_is_the_step_that_adam_makes() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5))
    adam = torch.optim.Adam([weight], lr=1e-3)
    for _ in range(3):
        weight.grad = torch.randn(5)
        adam.step()
    state = {k: v.clone() for k, v in adam.state[weight].items()}
    before, gradient = weight.detach().clone(), torch.randn(5)
    found = adam_direction(gradient, state["exp_avg"], state["exp_avg_sq"], Moments(steps=3))
    weight.grad = gradient
    adam.step()
    torch.testing.assert_close((before - weight.detach()) / 1e-3, found, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- projection


def test_projected_products_have_the_variance_that_is_promised() -> None:
    """Mean and variance over seeds, against the closed form in the head of sketch.py."""
    rng = np.random.default_rng(0)
    x, y = (torch.tensor(rng.normal(size=300), dtype=torch.float32) for _ in range(2))
    y = y + 0.5 * x
    size, seeds = 64, 4000
    pieces = [x[:100], x[100:].reshape(20, 10)], [y[:100], y[100:].reshape(20, 10)]
    found = np.empty(seeds)
    for seed in range(seeds):
        sketch = Sketch([100, 200], size=size, seed=seed)
        found[seed] = float(sketch(pieces[0]) @ sketch(pieces[1]))
    product = float(x @ y)
    variance = float((x @ x) * (y @ y) + product**2 - 2 * (x**2 * y**2).sum()) / size
    assert found.mean() == pytest.approx(product, abs=4 * math.sqrt(variance / seeds))
    assert found.var() == pytest.approx(variance, rel=0.1)


def test_a_projection_keeps_lengths_within_the_bound() -> None:
    """k = 4096: cosines of 40 vectors within four standard errors, √(2/k) each, of what they were."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 5000)).astype(np.float32)
    rows[20:] = rows[:20] + rng.normal(size=(20, 5000)) * np.linspace(0.1, 3, 20)[:, None]
    sketch = Sketch([5000])
    kept = np.stack([sketch([torch.tensor(r)]).numpy() for r in rows])
    assert kept.shape == (40, 4096)
    before, after = unit(rows) @ unit(rows).T, unit(kept) @ unit(kept).T
    assert np.abs(before - after).max() < 4 * math.sqrt(2 / 4096)


def test_a_projection_too_large_to_keep_is_drawn_again_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunewell.explain.influence.answers import sketch as module

    row = torch.randn(50, generator=torch.Generator().manual_seed(0))
    kept = Sketch([30, 20], size=16)
    first = kept([row[:30], row[30:]])
    assert len(kept._known) == 2
    monkeypatch.setattr(module, "KEPT", 10)
    again = Sketch([30, 20], size=16)
    torch.testing.assert_close(again([row[:30], row[30:]]), first)
    torch.testing.assert_close(again([row[:30], row[30:]]), first)
    assert not again._known


def test_trak_among_few_rows_is_trak() -> None:
    """The dual system against the one of `influence.trak`."""
    from tunewell.explain.influence import trak as of_classes
    from tunewell.explain.influence.answers.index import AnswerIndex, AnswerQuery

    rng = np.random.default_rng(0)
    plain, nothing = unit(rng.normal(size=(7, 20))), np.zeros((7, 1))
    index = AnswerIndex(plain, rng.uniform(1, 3, 7).astype(np.float32), None, nothing, nothing, nothing, nothing, BLOCK)
    asked = AnswerQuery(rng.normal(size=(3, 20)).astype(np.float32), np.zeros((3, 1)), np.zeros(3))
    found = METHODS["trak"](index, asked)
    index.kept.pop("trak")
    np.testing.assert_allclose(found, of_classes.scores(index, asked), rtol=1e-3)


# ---------------------------------------------------------------- runs


def test_what_a_lora_run_leaves(adapted: Path, whole: Path, tiny_decoder: Path) -> None:
    """The adapters of the best weights and moments; merged into the base model they are the saved one."""
    from transformers import AutoModelForCausalLM

    found = Adapters.load(adapted / "train" / "adapters.safetensors")
    assert found is not None and len(found.weights) == 14 and len(found.moments) == 14
    assert found.weights["model.layers.0.self_attn.q_proj"]["A"].shape == (4, 32)
    assert found.steps > 0 and found.rate > 0 and found.betas == (0.9, 0.999)
    model, saved = (AutoModelForCausalLM.from_pretrained(p) for p in (tiny_decoder, adapted / "model"))
    at(model, found)
    for (name, a), b in zip(model.named_parameters(), saved.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=1e-4, atol=1e-5)
    assert not (whole / "train" / "adapters.safetensors").exists()


@pytest.mark.parametrize("which", ["adapted", "whole"])
def test_rows_of_the_same_topic_stand_first(which: str, request: pytest.FixtureRequest) -> None:
    run: Path = request.getfixturevalue(which)
    lines: list[str] = []
    influence = AnswerInfluence(run, echo=lines.append)
    asked = ["das Essen 900", "say phone 901"]
    answers = ["das Essen war grün", "the phone was black"]
    found = influence.explain(asked, answers, top=5)
    assert found[0].gradients == (
        "Adam's steps, by the adapters" if which == "adapted" else "plain gradients, by the last block"
    )
    said = "the run's adapters" if which == "adapted" else "the last block"
    assert any(said in line for line in lines), lines
    for one, start in zip(found, ("das", "say"), strict=True):
        assert not one.written and one.loss > 0 and len(one.supports) == 5
        assert np.mean([b.text.startswith(start) for b in one.supports]) >= 0.8, one
        assert one.supports[0].score <= 1
        for behind in one.supports:
            place = influence._place[behind.row]
            assert influence.file.split[place] == "train"
            assert influence.file.dataset[place]["text"] == behind.text
    for method in METHODS:
        again = influence.explain(asked[:1], answers[:1], method=method, top=4)[0]
        assert np.mean([b.text.startswith("das") for b in again.supports]) >= 0.75, method


def test_scores_are_cosines_of_whole_gradients(whole: Path) -> None:
    """The index against gradients without projection."""
    influence = AnswerInfluence(whole)
    index = influence.index
    rows = influence.file.select(np.flatnonzero(influence.file.split == "train"))
    encoded = rows.encoded(influence.writer)
    with weights_of(influence.writer.model) as weights:
        pulls = Pulls(influence.writer, weights, None)
        exact = [pulls.of(e) for e in encoded]
    gradients = np.stack([p.plain for p in exact])
    np.testing.assert_allclose(index.norms, np.linalg.norm(gradients, axis=1), rtol=0.1)
    np.testing.assert_allclose(index.losses, [p.loss for p in exact], rtol=1e-4)
    wanted = unit(gradients) @ unit(gradients).T
    assert np.abs(cosines(index.plain, np.asarray(index.plain, np.float32)) - wanted).max() < 5 * math.sqrt(2 / 4096)
    assert index.rows.tolist() == rows.rows.tolist()


def test_the_models_own_answer_is_explained_by_default(whole: Path) -> None:
    influence = AnswerInfluence(whole)
    found = influence.explain(["say seat 7"])[0]
    assert found.written and found.answer == influence.writer.predict(["say seat 7"])[0]


def test_an_interrupted_index_goes_on_and_is_the_same(adapted: Path, tmp_path: Path, monkeypatch: Any) -> None:
    run = shutil.copytree(adapted, tmp_path / "run", ignore=shutil.ignore_patterns("influence"))
    done, put = [0], index_module.put

    def stop_at_30(arrays: Any, i: int, pull: Any) -> None:
        done[0] += 1
        if done[0] == 31:
            raise KeyboardInterrupt
        put(arrays, i, pull)

    monkeypatch.setattr(index_module, "put", stop_at_30)
    with pytest.raises(KeyboardInterrupt):
        _ = AnswerInfluence(run).index
    assert not (run / "influence" / "index.json").exists()
    lines: list[str] = []
    resumed = AnswerInfluence(run, echo=lines.append).index  # the thirty-first call went wrong; later ones do not
    assert any("going on at row 25" in line for line in lines), lines
    straight = AnswerInfluence(adapted).index
    assert resumed.adam is not None and straight.adam is not None
    np.testing.assert_array_equal(np.array(resumed.adam), np.array(straight.adam))
    np.testing.assert_array_equal(np.array(resumed.plain), np.array(straight.plain))
    lines.clear()
    _ = AnswerInfluence(run, echo=lines.append).index
    assert not lines  # it is there


# ---------------------------------------------------------------- mistakes


def test_a_run_whose_training_file_is_gone_or_changed(adapted: Path, tmp_path: Path) -> None:
    run = shutil.copytree(adapted, tmp_path / "run")
    original = adapted.parent / "rows.jsonl"
    with pytest.raises(DataError, match="is gone"):
        read_answer_rows(run, str(tmp_path / "nowhere.jsonl"))
    moved = tmp_path / "moved.jsonl"
    shutil.copyfile(original, moved)
    assert len(read_answer_rows(run, str(moved))) == 60
    moved.write_text(moved.read_text(encoding="utf-8") + json.dumps(rows_of_two_topics(1)[0]), encoding="utf-8")
    with pytest.raises(DataError, match="has changed"):
        read_answer_rows(run, str(moved))


def test_mistakes(adapted: Path) -> None:
    influence = AnswerInfluence(adapted)
    with pytest.raises(DataError, match="is empty"):
        influence.explain([" "])
    with pytest.raises(DataError, match="is empty"):
        influence.explain(["a"], [""])
    with pytest.raises(DataError, match="2 texts but 1 answers"):
        influence.explain(["a", "b"], ["c"])
    with pytest.raises(RecipeError, match="no method `layers` for written answers"):
        influence.explain(["a"], method="layers")


def test_damaged_adapters_are_as_if_there_were_none(adapted: Path, tmp_path: Path) -> None:
    run = shutil.copytree(adapted, tmp_path / "run")
    (run / "train" / "adapters.safetensors").write_bytes(b"cut")
    assert AnswerInfluence(run).gradients == "plain gradients, by the last block"


def test_the_command(adapted: Path, tmp_path: Path) -> None:
    def ask(*more: str) -> Any:
        return CliRunner().invoke(app, ["influence", str(adapted), *more])

    result = ask("das Essen 900", "--answer", "das Essen war grün", "--top", "2")
    assert result.exit_code == 0, result.output
    assert "makes it likelier:" in result.stdout and "method: less (Adam's steps, by the adapters)" in result.stdout
    found = json.loads(ask("das Essen 900", "--json").stdout)
    assert found["written"] and found["method"] == "less"
    (tmp_path / "asked.jsonl").write_text(
        json.dumps({"prompt": "das Essen 900", "said": "das Essen war grün"}) + "\n"
        + json.dumps({"prompt": "das Essen 901", "said": ""}) + "\n"
    )  # fmt: skip
    result = ask("--data", str(tmp_path / "asked.jsonl"), "--answer", "said", "--json")
    assert [json.loads(line)["answer"] for line in result.stdout.splitlines()] == ["das Essen war grün"]
    for more, says in (
        (("x", "--label", "y"), "--label is for classes"),
        (("--label-errors", str(tmp_path / "out.csv")), "--label-errors is for classes"),
        (("--data", str(tmp_path / "asked.jsonl"), "--answer", "sad"), "did you mean `said`?"),
        (("x", "--method", "head"), "no method `head` for written answers"),
    ):
        result = ask(*more)
        assert result.exit_code == 2, result.output
        assert says in result.output


def test_influence_on_classes_says_what_else_there_is(adapted: Path) -> None:
    from tunewell.explain.influence.attribute import Influence

    with pytest.raises(RunFolderError, match="is a run of text-generation"):
        Influence(adapted)


def test_answers_are_not_for_classes(classes: Any) -> None:
    result = CliRunner().invoke(app, ["influence", str(classes.run), "a text", "--answer", "b"])
    assert result.exit_code == 2
    assert "--answer is for runs that write answers" in result.output


def test_odd_prompts_and_answers(adapted: Path) -> None:
    asked = AnswerInfluence(adapted)
    odd = ["😀 😀", "שלום עולם", "مرحبا بالعالم", "这家酒店很好"]
    for found in [*asked.explain(odd, ["red"] * 4, top=2), *asked.explain(["say red"] * 4, odd, top=2)]:
        assert (np.isfinite(found.loss) and found.supports) or found.opposes
        assert all(np.isfinite(b.score) for b in (*found.supports, *found.opposes))
    for texts, answers, where in ((["red", "<pad>"], None, "text 2"), (["red"], ["<pad> <pad>"], "answer 1")):
        with pytest.raises(DataError, match="no words, only marks of the tokenizer: <pad>") as caught:
            asked.explain(texts, answers)
        assert caught.value.where == where
    with pytest.raises(DataError, match="is empty"):
        asked.explain([" "])
