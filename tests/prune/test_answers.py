"""`tunewell prune` on written answers: LESS by hand, a planted topic, likelihoods, the file, the page, mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tunewell.cli import app
from tunewell.errors import TunewellError
from tunewell.prune.answers.likelihood import alone, difficulties, perplexities
from tunewell.prune.answers.scores import ifd, less_by_subtask, order_of
from tunewell.prune.run import prune
from tunewell.tasks.generation.loss import IGNORED
from tunewell.tasks.generation.writers import CausalWriter
from tunewell.train.trace import Adapters

from .conftest import ENGLISH, GERMAN, KEYS, english, german, read, save


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 English rows, among them 16 German ones (rows 5, 10, …, 80), and a column of the user's own."""
    rows = [{**(german(i) if i % 5 == 4 else english(i)), "less": f"own {i}"} for i in range(80)]
    return save(tmp_path_factory.mktemp("pool") / "pool.jsonl", rows)


@pytest.fixture(scope="module")
def writer(tiny_decoder: Path) -> CausalWriter:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    return CausalWriter(model, AutoTokenizer.from_pretrained(tiny_decoder), 128)


# ---------------------------------------------------------------- scores by hand


def test_less_by_hand() -> None:
    """Two checkpoints of rates 3 and 1, two subtasks (of two rows and of one), three rows of the pool."""
    s = 1 / math.sqrt(2)
    steps = [np.array([[1.0, 0.0], [0.0, 1.0], [s, s]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])]
    targets = [np.array([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 3.0], [1.0, 1.0]])]
    found = less_by_subtask(steps, targets, [3.0, 1.0], np.array([0, 0, 1]))
    # first checkpoint: subtask 0 is the mean of (1, 0) and (0, 1), whatever their lengths; subtask 1 is (−1, 0)
    first = np.array([[0.5, -1.0], [0.5, 0.0], [s, -s]])
    second = np.array([[0.0, s], [0.0, s], [-1.0, -s]])
    np.testing.assert_allclose(found, 0.75 * first + 0.25 * second, atol=1e-6)


def test_orders_by_hand() -> None:
    nan = math.nan
    assert order_of("less", {"less": np.array([0.1, nan, 0.7, -0.2])}, 4, 0).tolist() == [2, 0, 3, 1]
    assert order_of("ifd", {"ifd": np.array([0.1, 1.5, 0.9, 1.0, nan])}, 5, 0).tolist() == [2, 0, 3, 1, 4]
    middle = order_of("perplexity", {"perplexity": np.array([1e6, 3.0, 1.0, 5.0, 9.0])}, 5, 0).tolist()
    assert middle[0] == 3 and set(middle[1:3]) == {1, 4} and set(middle[3:]) == {0, 2}
    assert sorted(order_of("random", {}, 9, 1).tolist()) == list(range(9))
    assert order_of("random", {}, 9, 1).tolist() != order_of("random", {}, 9, 2).tolist()
    found = ifd((np.array([6.0, 1.0]), np.array([3.0, 0.0])), (np.array([8.0, 1.0]), np.array([2.0, 0.0])))
    assert found[0] == 0.5 and np.isnan(found[1])


def test_likelihoods_are_those_of_transformers(writer: CausalWriter) -> None:
    """Perplexity, and the two losses of IFD, computed anew from logits: all but the answer's first token."""
    talks = [
        [{"role": "user", "content": "say red"}, {"role": "assistant", "content": "the room was red"}],
        [
            {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three"}, {"role": "assistant", "content": "four five six"},
        ],
    ]  # fmt: skip
    rows = [writer.encode(t) for t in talks]
    found = difficulties(writer, rows, progress=False)
    simple = perplexities(writer, rows, progress=False)
    assert writer.tokenizer.bos_token_id is None
    for i, row in enumerate(rows):
        ids = torch.tensor([row.ids])
        whole = writer.model(input_ids=ids, labels=torch.tensor([row.labels])).loss
        assert simple["perplexity"][i] == pytest.approx(math.exp(whole.item()), rel=1e-4)
        assert simple["tokens"][i] == sum(y != IGNORED for y in row.labels)
        places = [k for k, y in enumerate(row.labels) if y != IGNORED]
        last = [k for k in places if all(j in places for j in range(k, places[-1] + 1))]
        with torch.inference_mode():
            after = writer.model(input_ids=ids).logits[0].log_softmax(-1)
            by_itself = writer.model(input_ids=ids[:, last[0] : last[-1] + 1]).logits[0].log_softmax(-1)
        wanted = last[1:]
        given = -np.mean([float(after[k - 1, row.ids[k]]) for k in wanted])
        lonely = -np.mean([float(by_itself[k - 1 - last[0], row.ids[k]]) for k in wanted])
        assert found["loss"][i] == pytest.approx(given, rel=1e-4)
        assert found["loss_alone"][i] == pytest.approx(lonely, rel=1e-4)
        assert found["ifd"][i] == pytest.approx(given / lonely, rel=1e-4)


def test_with_a_mark_of_the_beginning_the_first_token_counts(writer: CausalWriter) -> None:
    class Marked:
        bos_token_id = 7

    row = writer.encode([{"role": "user", "content": "say red"}, {"role": "assistant", "content": "red"}])
    given, by_itself = alone(Marked(), row)
    assert given.labels == row.labels
    answer = [y for y in row.labels if y != IGNORED]
    assert by_itself.labels[0] == IGNORED and by_itself.ids[0] == 7
    assert [y for y in by_itself.labels if y != IGNORED] == answer


# ---------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, tiny_decoder: Path, pool: Path) -> tuple[Any, Path, list[str]]:
    """What LESS keeps of the pool towards four German rows."""
    folder = tmp_path_factory.mktemp("less")
    few = save(folder / "few.jsonl", [german(i) for i in range(100, 104)])
    lines: list[str] = []
    done = prune(
        pool, folder / "kept.jsonl", method="less", target_rows=str(few), keep_share=0.2, warm_share=0.5,
        model=str(tiny_decoder), output_dir=str(folder / "run"), echo=lines.append, **KEYS,
    )  # fmt: skip
    return done, folder, lines


def test_planted_rows_stand_first(chosen: tuple[Any, Path, list[str]], pool: Path) -> None:
    done, folder, lines = chosen
    all_rows, kept = read(pool), read(folder / "kept.jsonl")
    assert len(kept) == done.record.kept == 16 and done.record.rows == 80
    assert sum(r["prompt"].startswith("das") for r in kept) >= 14  # of 16 planted among 80
    assert list(kept[0]) == ["prompt", "completion", "less", "row", "less_2"]  # the user's own column keeps its name
    assert [r["row"] for r in kept] == sorted(r["row"] for r in kept)
    for r in kept:
        assert {k: r[k] for k in ("prompt", "completion", "less")} == all_rows[r["row"] - 1]
        assert r["less_2"] == pytest.approx(done.scores["less"][r["row"] - 1], abs=1e-6)
    assert min(r["less_2"] for r in kept) >= np.sort(done.scores["less"])[-16] - 1e-6
    record = json.loads((folder / "run" / "prune.json").read_text(encoding="utf-8"))
    assert record["warm_rows"] == 40 and len(record["rates"]) == 2 and record["target_n"] == 4
    assert sum(b["kept"] for b in record["bins"]) == 16 and sum(b["rows"] for b in record["bins"]) == 80
    page = done.page.read_text(encoding="utf-8")
    assert "influence on the target rows" in page and "First of the order" in page
    assert any("warm-up on 40 of 80 rows" in line for line in lines)
    assert not any("prompt of a target row" in line for line in lines)


def test_the_score_is_that_of_whole_gradients(chosen: tuple[Any, Path, list[str]], tiny_decoder: Path) -> None:
    """A row's score from PEFT's adapted model and autograd, without projection, hooks or our Adam."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done, folder, _ = chosen
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    total, rates = np.zeros(2), []
    for epoch in (1, 2):
        noted = Adapters.load(folder / "run" / "train" / "warmup" / "epochs" / f"epoch-{epoch}.safetensors")
        assert noted is not None
        rates.append(noted.rate)
        model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
        config = LoraConfig(r=4, lora_alpha=16, target_modules=sorted(noted.weights))
        LoraModel(model, config, "default")
        leaves, moments = [], []
        with torch.no_grad():
            for layer in sorted(noted.weights):
                for part in "AB":
                    leaf = getattr(model.get_submodule(layer), f"lora_{part}")["default"].weight
                    leaf.copy_(noted.weights[layer][part])
                    leaves.append(leaf)
                    moments.append(noted.moments[layer][part])
            parameters = dict(model.named_parameters())
            for name, value in noted.others.items():
                parameters[name].copy_(value)
        writer = CausalWriter(model, tokenizer, 128)

        def gradient(row: dict[str, str]) -> list[torch.Tensor]:
            talk = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
            encoded = writer.encode(talk)  # noqa: B023
            loss = model(input_ids=torch.tensor([encoded.ids]), labels=torch.tensor([encoded.labels])).loss  # noqa: B023
            return list(torch.autograd.grad(loss, leaves))  # noqa: B023

        aims = [torch.cat([g.reshape(-1) for g in gradient(german(i))]) for i in range(100, 104)]
        for place, row in enumerate((german(4), english(0))):
            step = []
            for g, (mean, square) in zip(gradient(row), moments, strict=True):
                m = (0.9 * mean + 0.1 * g) / (1 - 0.9 ** (noted.steps + 1))
                v = (0.999 * square + 0.001 * g**2) / (1 - 0.999 ** (noted.steps + 1))
                step.append((m / (v.sqrt() + 1e-8)).reshape(-1))
            whole = torch.cat(step)
            cosines = [float(torch.nn.functional.cosine_similarity(whole, aim, dim=0)) for aim in aims]
            total[place] += noted.rate * float(np.mean(cosines))
    wanted = total / sum(rates)
    found = done.scores["less"][[4, 0]]
    assert np.abs(found - wanted).max() < 4 * math.sqrt(2 / 4096)
    assert wanted[0] > wanted[1]


def test_again_takes_no_second_warm_up(
    chosen: tuple[Any, Path, list[str]], pool: Path, tiny_decoder: Path, tmp_path: Path
) -> None:
    """Another share reads everything; another target, with subtasks, takes gradients of the target alone."""
    first, folder, _ = chosen
    lines: list[str] = []
    options: dict[str, Any] = {
        "method": "less", "warm_share": 0.5, "model": str(tiny_decoder), "output_dir": str(folder / "run"),
        "echo": lines.append, "duplicates": "keep", **KEYS,
    }  # fmt: skip
    again = prune(pool, tmp_path / "a.jsonl", keep_share=0.1, target_rows=str(folder / "few.jsonl"), **options)
    assert not [line for line in lines if "warm-up" in line or "gradients" in line], lines
    np.testing.assert_array_equal(again.scores["less"], first.scores["less"])
    assert again.kept.sum() == 8
    both = [{**german(200), "kind": "deutsch"}, {**german(201), "kind": "deutsch"}, {**english(202), "kind": "english"}]
    few = save(tmp_path / "both.jsonl", both)
    done = prune(
        pool, tmp_path / "b.csv", keep_share=0.5, target_rows=str(few), subtask="kind", **{**options, "lang": "zh"}
    )
    assert not [line for line in lines if "warm-up" in line]
    assert len([line for line in lines if "gradients of 3 rows" in line]) == 2, lines
    assert done.record.subtasks["deutsch"][0] == 2 and done.record.subtasks["english"][0] == 1
    assert sum(n for _, n in done.record.subtasks.values()) == 40
    assert "子任务" in done.page.read_text(encoding="utf-8")
    header = (tmp_path / "b.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "prompt,completion,less,row,less_2,subtask"


@pytest.mark.parametrize("method", ["perplexity", "ifd", "random"])
def test_methods_without_a_target(method: str, pool: Path, tiny_decoder: Path, tmp_path: Path) -> None:
    test = save(tmp_path / "test.jsonl", [english(0), english(300)])
    twin = save(tmp_path / "pool.jsonl", [*read(pool), {**english(1), "less": "twin"}])
    lines: list[str] = []
    options: dict[str, Any] = {
        "method": method, "model": str(tiny_decoder), "test": str(test), "output_dir": str(tmp_path / "run"),
        "echo": lines.append, "duplicates": "exact", "bf16": False, "threads": 1, "progress": False,
    }  # fmt: skip
    done = prune(twin, tmp_path / "kept.jsonl", keep_share=0.5, **options)
    kept = read(tmp_path / "kept.jsonl")
    assert len(kept) == round(81 / 2)
    assert not [line for line in lines if line.startswith("tune:")]
    assert english(0)["prompt"] not in [r["prompt"] for r in kept]
    assert sum(r["prompt"] == english(1)["prompt"] for r in kept) <= 1
    assert done.record.left_out == {"a duplicate with the same answer": 1, "a prompt of the test file": 1}
    assert f"--test {test}" in done.record.command and "--task text-generation" in done.record.command
    columns = {"perplexity": ["perplexity", "tokens"], "ifd": ["ifd", "loss", "loss_alone"], "random": []}[method]
    assert list(kept[0]) == ["prompt", "completion", "less", "row", *columns]
    lines.clear()
    again = prune(twin, tmp_path / "again.jsonl", keep_share=0.25, **options)
    assert not [line for line in lines if "likelihood" in line]
    assert again.kept.sum() == 20 and (done.kept | ~again.kept).mean() > 0.9


@pytest.fixture(scope="module")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory, tiny_t5: Path) -> Path:
    """Folder of a random BART: 2 layers each, hidden 32, with the tokenizer of `tiny_t5`."""
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny") / "tiny-bart"
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["tiny_bart", "tiny_t5"])
def test_translation_by_an_encoder_decoder(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = request.getfixturevalue(family)
    both = enumerate(zip(ENGLISH * 6, GERMAN * 6, strict=True))
    pairs = [{"source": f"the {a[1]} {i}", "target": f"das {b[1]} war {b[0]} {i}"} for i, (a, b) in both]
    pool = save(tmp_path / "pool.jsonl", pairs)
    few = save(tmp_path / "few.jsonl", [{"source": "the seat", "target": "der Sitz"}])
    options: dict[str, Any] = {"output_dir": str(tmp_path / "run"), "echo": lambda line: None, **KEYS}
    aim: dict[str, Any] = {"method": "auto", "target_rows": str(few), "keep_share": 0.3, "warm_share": 1.0}
    done = prune(pool, tmp_path / "kept.jsonl", model=str(model), **aim, **options)
    assert done.record.method == "less" and done.record.task == "translation"
    assert len(read(tmp_path / "kept.jsonl")) == 9
    assert np.isfinite(done.scores["less"]).all() and np.abs(done.scores["less"]).max() <= 1
    options["output_dir"] = str(tmp_path / "other")
    with pytest.raises(TunewellError, match="`ifd` reads an answer without its prompt"):
        prune(pool, tmp_path / "no.jsonl", method="ifd", model=str(model), **options)
    assert not (tmp_path / "no.jsonl").exists() and not (tmp_path / "other").exists()


def test_the_command(chosen: tuple[Any, Path, list[str]], pool: Path, tiny_decoder: Path, tmp_path: Path) -> None:
    line = ["prune", str(pool), "-o", str(tmp_path / "kept.jsonl"), "--method", "random", "--keep_share", "0.1"]
    line += ["--model", str(tiny_decoder), "--output_dir", str(tmp_path / "run"), "--no-bf16"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert f"page: {tmp_path / 'run' / 'selection.html'}" in result.stdout
    assert "next: tunewell run --task text-generation --train" in result.stdout
    page = (tmp_path / "run" / "selection.html").read_text(encoding="utf-8")
    assert "First of the order" in page and "Last of the order" not in page, "a draw wants no row more than another"
    assert ">score<" not in page
    found = CliRunner().invoke(app, [*line, "--overwrite", "--json"])
    assert json.loads(found.stdout)["kept"] == 8


def test_a_warm_up_without_one_of_its_epochs(
    chosen: tuple[Any, Path, list[str]], pool: Path, tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewell.train.trace import Trace

    _, folder, _ = chosen
    first = Trace.path
    for missing in (1, 2):
        with monkeypatch.context() as patched:
            endings = {missing: ".gone"}
            patched.setattr(
                Trace, "path", lambda self, k, e=endings: first(self, k).with_suffix(e.get(k, ".safetensors"))
            )
            with pytest.raises(TunewellError, match="has left no checkpoints"):
                prune(
                    pool, tmp_path / "kept.jsonl", method="less", target_rows=str(folder / "few.jsonl"),
                    model=str(tiny_decoder), output_dir=str(tmp_path / str(missing)), echo=lambda line: None, **KEYS,
                )  # fmt: skip


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "`method: auto` of written answers needs target rows"),
        (["--method", "less"], "`method: less` needs target rows"),
        (["--method", "les"], "did you mean `less`?"),
        (["--method", "el2n"], "scores the probability of a label"),
        (["--method", "ifd", "--target_rows", "few.jsonl"], "`ifd` has no target"),
        (["--target_rows", "empty.jsonl"], "is empty"),
        (["--target_rows", "blank.jsonl"], "no target row has a question and an answer"),
        (["--target_rows", "other.jsonl"], "no format of instructions fits its columns"),
        (["--target_rows", "gone.jsonl"], "no such file"),
        (["--target_rows", "few.jsonl", "--test", "test.jsonl"], "2 target rows are test rows"),
        (["--target_rows", "few.jsonl", "--subtask", "kin"], "did you mean `kind`?"),
        (["--target_rows", "holes.jsonl", "--subtask", "kind"], "holes.jsonl:2, 3"),
        (["--target_rows", "few.jsonl", "--warm_share", "0"], "`warm_share: 0` is not possible"),
        (["--method", "random", "--subtask", "kind"], "names a column of the target rows"),
        (["--method", "random", "--balance", "equal"], "`balance` is for classes"),
        (["--method", "random", "--tunings", "2"], "`tunings` is for classes"),
        (["--target_rows", "few.jsonl", "--optim", "prodigy"], "leaves no steps of Adam"),
        (["--method", "random", "--source", "propmt", "--target", "completion"], "did you mean `prompt`?"),
    ],
)
def test_mistakes(
    options: list[str], says: str, pool: Path, tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = [{**german(i), "kind": "a"} for i in range(4)]
    save(tmp_path / "few.jsonl", few)
    save(tmp_path / "holes.jsonl", [few[0], {**few[1], "kind": None}, {**few[2], "kind": " "}])
    save(tmp_path / "test.jsonl", [*few[:2], english(7)])
    save(tmp_path / "blank.jsonl", [{"prompt": "a", "completion": ""}])
    save(tmp_path / "other.jsonl", [{"a": "b", "c": "d"}])
    (tmp_path / "empty.jsonl").write_text("")
    result = CliRunner().invoke(
        app, ["prune", str(pool), "-o", "kept.jsonl", "--model", str(tiny_decoder), *options], catch_exceptions=False
    )
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert not Path("kept.jsonl").exists() and not Path("runs").exists()


def test_answers_options_are_not_for_classes(tmp_path: Path, make_reviews: Any, save_csv: Any) -> None:
    train = save_csv(tmp_path / "reviews.csv", make_reviews(20))
    out = tmp_path / "kept.csv"
    for options, says in (({"method": "ifd"}, "is for rows with written answers"),
                          ({"target_rows": "few.jsonl"}, "is for rows with written answers")):  # fmt: skip
        with pytest.raises(TunewellError, match=says):
            prune(train, out, output_dir=str(tmp_path / "run"), echo=lambda line: None, **options)
    assert not out.exists() and not (tmp_path / "run").exists()


def test_a_run_that_writes_is_not_pruned(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("train: pool.jsonl\n")
    (run / "task.json").write_text(json.dumps({"spec": {"name": "text-generation"}}))
    with pytest.raises(TunewellError, match="this run writes answers"):
        prune(run, tmp_path / "kept.jsonl", method="less", target_rows="few.jsonl")


def test_a_warm_up_without_checkpoints(
    chosen: tuple[Any, Path, list[str]], pool: Path, tiny_decoder: Path, tmp_path: Path
) -> None:
    """Adapters that are gone or cut are made again; the damage is told."""
    import shutil

    _, folder, _ = chosen
    run = shutil.copytree(folder / "run", tmp_path / "run")
    epochs = run / "train" / "warmup" / "epochs"
    (epochs / "epoch-2.safetensors").write_bytes(b"cut")
    lines: list[str] = []
    done = prune(
        pool, tmp_path / "kept.jsonl", method="less", target_rows=str(folder / "few.jsonl"), keep_share=0.2,
        warm_share=0.5, model=str(tiny_decoder), output_dir=str(run), echo=lines.append, **KEYS,
    )  # fmt: skip
    assert any("damaged" in line for line in lines), lines
    assert any("warm-up on 40" in line for line in lines)
    np.testing.assert_allclose(done.scores["less"], chosen[0].scores["less"], atol=1e-4)
