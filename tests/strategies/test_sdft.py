"""`strategy: sdft`: which rows are rewritten, what the tuner learns from, what is written down, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunewell.errors import RecipeError
from tunewell.recipe import Recipe
from tunewell.stages.rewrite import FILE, PARTS, ROWS, Rewriting, RewrittenExample
from tunewell.strategies import check_combination
from tunewell.tasks.generation import rewriting
from tunewell.tasks.generation.loss import IGNORED
from tunewell.tasks.generation.writers import CausalWriter, Decoding

COLOURS, THINGS = ("red", "blue", "green", "black", "white"), ("room", "seat", "meal", "phone", "hotel", "crew")
TEMPLATE = "{instruction} => {answer}"


def rows(n: int) -> list[dict[str, str]]:
    """Every fifth is red, and so on; no two prompts alike."""
    out = []
    for i in range(n):
        colour, thing = COLOURS[i % 5], THINGS[i // 5 % 6]
        out.append({"prompt": f"say {colour} {thing} {i}", "completion": f"the {thing} was {colour}"})
    return out


def said_of(prompt: str, answer: str) -> tuple[str, bool]:
    """What the stub says: red answers in other words, nothing, too long, a refusal, something else."""
    colour = next(word for word in prompt.split() if word in COLOURS)
    return {
        "red": (answer.replace("was", "was surely"), True),
        "blue": ("", True),
        "green": (answer.replace("was", "was surely"), False),
        "black": ("I'm sorry, I can't say.", True),
        "white": ("one two three four", True),
    }[colour]


WHY = {"red": "", "blue": "empty", "green": "cut", "black": "refusal", "white": "similarity"}


class Stub:
    """Stands in for what the base model writes when it is asked to rewrite; everything else is the model's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.batches = 0
        self.fail_at = 0  # the batch, counted from 1, at which it breaks; 0 for never
        own = CausalWriter.write

        def write(writer, prompts, progress=None, limits=None):
            if limits is None:
                return own(writer, prompts, progress)
            self.batches += 1
            if self.batches == self.fail_at:
                raise RuntimeError("the power is gone")
            contents = [p[-1]["content"] for p in prompts]
            self.asked += contents
            said = [said_of(*c.split(" => ")) for c in contents]
            return [text for text, _ in said], np.array([ended for _, ended in said])

        monkeypatch.setattr(CausalWriter, "write", write)


@pytest.fixture
def stub(monkeypatch):
    return Stub(monkeypatch)


@pytest.fixture
def learned(monkeypatch):
    """The answers of the rows that the training loop is given, in order; filled when it begins."""
    from transformers import AutoTokenizer

    import tunewell.train.tune as loop

    found: list[str] = []
    own = loop.tune

    def tune(model, tokenizer, spec, train, *, inputs, recipe, **options):
        reader = AutoTokenizer.from_pretrained(recipe.model)
        found.clear()
        for labels in inputs.rows["labels"]:
            found.append(reader.decode([i for i in labels if i != IGNORED], skip_special_tokens=True))
        assert [r["label"] for r in train] == found
        return own(model, tokenizer, spec, train, inputs=inputs, recipe=recipe, **options)

    monkeypatch.setattr(loop, "tune", tune)
    return found


@pytest.fixture
def keys(tiny_decoder, tmp_path):
    """Of a run on 25 training rows, 5 of each colour, with files of their own for validation and test."""
    everything = rows(45)
    out = {}
    for name, part in (("train", everything[:25]), ("validation", everything[25:35]), ("test", everything[35:])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
        out[name] = str(path)
    return {
        **out, "task": "text-generation", "model": str(tiny_decoder), "strategy": "sdft", "sdft_template": TEMPLATE,
        "probes": "none", "max_steps": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
        "max_new_tokens": 4, "generation_samples": 2, "bf16": False, "max_length": 64, "threads": 1,
        "output_dir": str(tmp_path / "run"),
    }  # fmt: skip


def entries(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / ROWS).read_text(encoding="utf-8").split("\n") if line]


def run(keys, **more):
    import tunewell

    lines: list[str] = []
    done = tunewell.run(**{**keys, **more}, echo=lines.append, progress=False)
    return done, lines


# ---------------------------------------------------------------- what is learned


def test_the_tuner_learns_from_what_was_taken_and_from_the_originals(keys, stub, learned):
    done, lines = run(keys)
    train = rows(45)[:25]
    expected = [
        r["completion"].replace("was", "was surely") if r["prompt"].split()[1] == "red" else r["completion"]
        for r in train
    ]
    assert learned == expected
    # only training rows are asked about, each once
    assert sorted(stub.asked) == sorted(f"{r['prompt']} => {r['completion']}" for r in train)
    assert stub.batches >= 25 / 4
    # test rows are scored against the answers of the data
    table = (done.dir / "predictions.csv").read_text(encoding="utf-8")
    assert "surely" not in table and table.count(" was ") == 2
    assert all("surely" not in s["reference"] for s in json.loads((done.dir / "samples.json").read_text())["rows"])

    from tunewell.errors import RunFolderError
    from tunewell.explain.influence.answers.index import _key
    from tunewell.explain.influence.answers.rows import read_answer_rows

    traced = read_answer_rows(done.dir)  # influence is of the answers that were learned
    assert traced.dataset["label"][:] == expected and traced.rows.tolist() == list(range(1, 26))
    assert [json.loads(m)[-1]["content"] for m in traced.dataset["messages"]] == expected
    key, written = _key(traced), (done.dir / ROWS).read_bytes()
    (done.dir / ROWS).write_text("".join(json.dumps({**e, "taken": False}) + "\n" for e in entries(done.dir)))
    assert _key(read_answer_rows(done.dir)) != key
    for damage in (
        written[: len(written) // 2],
        written + written.split(b"\n")[0].replace(b'"row": 1,', b'"row": 99,'),
    ):
        (done.dir / ROWS).write_bytes(damage)
        with pytest.raises(RunFolderError, match="are missing or are not those of its rows"):
            read_answer_rows(done.dir)
    (done.dir / ROWS).write_bytes(written)

    found = entries(done.dir)
    assert [e["row"] for e in found] == list(range(1, 26)) and {e["source"] for e in found} == {keys["train"]}
    for row, entry in zip(train, found, strict=True):
        colour = row["prompt"].split()[1]
        assert entry["original"] == row["completion"] and entry["why"] == WHY[colour]
        assert entry["taken"] == (colour == "red")
        assert entry["rewritten"] == said_of(row["prompt"], row["completion"])[0]
    assert found[0]["similarity"] == round(2 * 4 / (4 + 5), 4)  # four words in common of four and five

    record = Rewriting.load(done.dir / FILE)
    kept = {"empty": 5, "cut": 5, "refusal": 5, "similarity": 5}
    assert (record.rows, record.asked, record.rewritten, record.kept) == (25, 25, 5, kept)
    assert record.similarity == pytest.approx(8 / 9, abs=1e-4) and record.measured == 5
    assert [e.why for e in record.examples] == ["", "", "", "", "cut", "refusal", "similarity"]
    assert done.summary.sdft == {
        "rows": 25, "rewritten": 5, "kept": kept, "similarity": record.similarity,
        "bits_per_byte": record.bits_per_byte,
    }  # fmt: skip
    assert len(done.summary.verdict) == 3
    assert done.summary.strategy == ("sdft",) and done.summary.n_train == 25
    told = next(line for line in lines if line.startswith("sdft: 5 of 25"))
    assert "5 became a refusal" in told and "5 did not come to an end" in told
    assert done.summary.seconds["train"] >= record.seconds
    page = done.report_path.read_text(encoding="utf-8")
    assert "in the base model&#39;s own words" in page or "in the base model's own words" in page
    assert "the room was surely red" in page and "5 of 25 training answers (20%)" in page
    assert not (done.dir / PARTS).exists()


def test_bits_a_byte_are_those_of_the_base_model_by_hand(keys, stub, tiny_decoder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done, _ = run(keys)
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    taken = [r for r in rows(45)[:25] if " red " in r["prompt"]]
    for name, change in (("original", lambda t: t), ("rewritten", lambda t: t.replace("was", "was surely"))):
        nats = size = 0.0
        for row in taken:
            asked = f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"
            before = tokenizer(asked, add_special_tokens=False)["input_ids"]
            whole = tokenizer(asked + change(row["completion"]) + "<|im_end|>", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            nats -= sum(float(logs[i - 1, whole[i]]) for i in range(len(before), len(whole)))
            size += len(change(row["completion"]).encode())
        bits = Rewriting.load(done.dir / FILE).bits_per_byte[name]
        assert bits == pytest.approx(nats / np.log(2) / size, rel=1e-3)


def test_a_base_that_writes_rubbish_leaves_everything_and_says_so(keys, learned):
    """The tiny decoder has random weights: what it writes is checked as it comes, and nothing passes."""
    done, lines = run(keys, sdft_max_new_tokens=12)
    assert learned == [r["completion"] for r in rows(45)[:25]]
    assert done.summary.sdft["rewritten"] == 0 and sum(done.summary.sdft["kept"].values()) == 25
    assert done.summary.sdft["bits_per_byte"] == {} and done.summary.sdft["similarity"] is None
    told = next(line for line in lines if line.startswith("sdft: None of the 25"))
    assert "has done nothing" in told
    assert len(done.summary.verdict) == 4 and "has done nothing" in done.summary.verdict[-1]
    assert "which has done nothing" in done.report_path.read_text(encoding="utf-8")
    plain, _ = run(keys, strategy="plain", output_dir=keys["output_dir"] + "-plain")
    assert (plain.model_path / "model.safetensors").read_bytes() == (done.model_path / "model.safetensors").read_bytes()
    assert plain.summary.sdft is None


def test_a_run_without_it_keeps_no_record_of_it(keys, stub):
    done, _ = run(keys)
    assert (done.dir / FILE).is_file()
    again, _ = run(keys, strategy="plain")
    assert again.dir == done.dir and again.summary.sdft is None
    assert not (again.dir / FILE).exists() and not (again.dir / ROWS).exists()
    assert "in the base model" not in again.report_path.read_text(encoding="utf-8")


def test_a_chinese_report(keys, stub):
    done, _ = run(keys, lang="zh")
    assert "25 个训练答案中有 5 个（20%）采用了基础模型自己的说法" in done.report_path.read_text(encoding="utf-8")


def test_what_was_written_is_shown_and_never_run(make_records, tmp_path):
    from tunewell.report.build import build

    hostile = "<script>alert(1)</script>"
    example = {"where": f"{hostile}.jsonl:3", "instruction": hostile, "original": hostile, "rewritten": hostile}
    folder = make_records(tmp_path / "run")
    Rewriting(
        rows=9, asked=8, rewritten=1, kept={"numbers": 2, "cut": 6}, similarity=0.7, measured=1, template="t",
        bits_per_byte={"original": 1.234, "rewritten": 0.5}, seconds=3.0,
        examples=(RewrittenExample(**example), RewrittenExample(**example, why="numbers")),
    ).write(folder / FILE)  # fmt: skip
    page = build(folder).read_text(encoding="utf-8")
    assert hostile not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "1 of 9 training answers (11%)" in page and "0.50 bits a byte, where their originals have 1.23" in page
    assert page.index("did not come to an end") < page.index("lost or gained a number")  # the most frequent first


# ---------------------------------------------------------------- once, whole, the same again


def test_a_resumed_run_does_not_ask_again(keys, stub, monkeypatch):
    import tunewell.train.tune as loop

    own = loop.tune
    path = Path(keys["train"])  # a text may hold what some take for the end of a line
    path.write_text(path.read_text(encoding="utf-8").replace("was red", r"was\u2028red"), encoding="utf-8")

    def gone(*args, **options):
        raise RuntimeError("the power is gone")

    monkeypatch.setattr(loop, "tune", gone)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run(keys)
    asked = stub.batches
    assert asked and (Path(keys["output_dir"]) / ROWS).is_file()
    monkeypatch.setattr(loop, "tune", own)
    done, _ = run(keys)
    assert stub.batches == asked and done.summary.sdft["rewritten"] == 5
    run(keys, sdft_min_similarity=0.95)  # another setting is another answer
    assert stub.batches == 2 * asked
    assert Rewriting.load(done.dir / FILE).rewritten == 0


def test_a_run_stopped_while_rewriting_goes_on_at_the_batch(keys, stub, tmp_path):
    stub.fail_at = 4
    with pytest.raises(RuntimeError, match="the power is gone"):
        run(keys)
    folder = Path(keys["output_dir"])
    assert len(list((folder / PARTS).glob("*.json"))) == 3 and not (folder / ROWS).exists()
    before = len(stub.asked)
    torn = sorted((folder / PARTS).glob("*.json"))[1]
    torn.write_text(torn.read_text(encoding="utf-8")[:20], encoding="utf-8")  # is written again
    lost = 4
    stub.fail_at = 0
    run(keys)
    assert len(stub.asked) == 25 + lost and len(set(stub.asked)) == 25
    assert before < 25
    stopped = (folder / ROWS).read_bytes()
    run(keys, output_dir=str(tmp_path / "whole"))
    assert (tmp_path / "whole" / ROWS).read_bytes() == stopped


def test_the_same_seed_draws_the_same_words(keys, tmp_path):
    from tunewell.run import tune_only

    def drawn(name: str, **more) -> bytes:
        recipe = Recipe(**{**keys, "output_dir": str(tmp_path / name), "sdft_temperature": 1.0, **more})
        tune_only(recipe, echo=lambda line: None, progress=False)
        return (tmp_path / name / ROWS).read_bytes()

    first = drawn("a", sdft_max_new_tokens=8)
    assert first == drawn("b", sdft_max_new_tokens=8)
    assert first != drawn("c", sdft_max_new_tokens=8, seed=7)
    written = {e["rewritten"] for e in entries(tmp_path / "a")}
    assert len(written) > 5  # and not one text for all


# ---------------------------------------------------------------- what is asked


@pytest.fixture(scope="module")
def tokenizer(tiny_decoder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_decoder)


def turn(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


def test_the_last_question_is_asked_anew_in_its_conversation(tokenizer):
    talk = [turn("system", "be brief"), turn("user", "say one"), turn("assistant", "one"), turn("user", "and two"),
            turn("assistant", "one two")]  # fmt: skip
    no_loss = [*talk[:-1], turn("assistant", "one two", weight=0)]
    tool = [turn("user", "say"), turn("assistant", "", weight=0), turn("tool", "two"), turn("assistant", "two")]
    asked, left = rewriting.requests(
        tokenizer, [talk, no_loss, tool, [turn("user", "say " * 120), turn("assistant", "one")]],
        template=TEMPLATE, ratio=2.0, most=50, window=128,
    )  # fmt: skip
    assert left == {1: "no-loss", 2: "no-question", 3: "window"}
    (request,) = asked
    assert request.at == 0 and request.messages == [*talk[:3], turn("user", "and two => one two")]
    size = len(tokenizer("one two", add_special_tokens=False)["input_ids"])
    assert request.limit == 2 * size + rewriting.TOKENS
    assert request.length == len(
        tokenizer.apply_chat_template(request.messages, add_generation_prompt=True)["input_ids"]
    )


def test_an_answer_does_not_depend_on_those_beside_it(tiny_decoder, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    prompts = [[turn("user", f"say {c} room")] for c in COLOURS]
    limits = [3, 9, 5, 1, 9]
    together = CausalWriter(model, tokenizer, 128, Decoding(max_new_tokens=9), batch_size=8).write(
        prompts, limits=limits
    )
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        alone = CausalWriter(model, tokenizer, 128, Decoding(max_new_tokens=limit), batch_size=8)
        texts, ended = alone.write([prompt])
        assert (texts[0], ended[0]) == (together[0][i], together[1][i])


def test_a_row_that_would_lose_its_beginning_keeps_its_answer(keys, stub):
    longest = max(len(r["completion"]) for r in rows(25))
    done, _ = run(keys, max_length=None)
    record = Rewriting.load(done.dir / FILE)
    assert longest and record.rewritten + record.kept.get("long", 0) == 5
    tight, _ = run(keys, max_length=16)  # rows are cut already: what is longer would be cut more
    assert Rewriting.load(tight.dir / FILE).kept["long"] == 5


def test_a_decoder_that_translates_is_asked_with_its_instruction(tiny_decoder, tmp_path, stub):
    pytest.importorskip("sacrebleu")
    import tunewell

    path = tmp_path / "pairs.jsonl"
    pairs = [
        {"en": f"say {c} {t}", "de": f"das {t} war {c}"} for c, t in zip(COLOURS * 6, THINGS * 5, strict=True)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(p) + "\n" for p in pairs), encoding="utf-8")
    done = tunewell.run(
        train=str(path), task="translation", source="en", target="de", source_prefix="say ", model=str(tiny_decoder),
        strategy="sdft", sdft_template=TEMPLATE, probes="none", max_steps=1, per_device_train_batch_size=4,
        max_new_tokens=4, generation_samples=2, bf16=False, threads=1, output_dir=str(tmp_path / "run"),
        echo=lambda line: None, progress=False,
    )  # fmt: skip
    assert done.summary.sdft["rows"] == done.summary.n_train == len(stub.asked)
    assert all(c.startswith("say say ") and " => das " in c for c in stub.asked)


# ---------------------------------------------------------------- what goes together


@pytest.mark.parametrize("other", ["distill", "ema", "lora", "average", "rehearse", "swa"])
def test_it_composes(keys, stub, learned, other):
    done, _ = run(keys, strategy=["sdft", other], general_samples=16, general_text=keys["train"], rehearse_weight=0.1)
    assert done.summary.strategy == ("sdft", other)
    assert sum("surely" in text for text in learned) == 5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sdft", "mixup"], "`mixup` needs classes"),
        (["sdft", "lpft", "mas"], "`lpft` and `mas` need classes"),
        (["sdft", "fewshot"], "`fewshot` needs classes"),
        (["sdft", "prompt"], "not with `sdft`"),
        (["sdft", "plain"], "`plain` protects nothing"),
        (["sdft", "auto"], "`auto` chooses strategies by itself"),
    ],
)
def test_combinations_without_a_meaning(names, message):
    assert message in "; ".join(check_combination(names))


def test_a_frozen_encoder_needs_no_own_words():
    assert "`sdft` has nothing to keep" in "; ".join(check_combination(["sdft", "freeze"], "head_only"))


def test_a_class_has_no_other_words(tiny_model, tiny_decoder, tiny_csv, tmp_path):
    import tunewell

    for more in ({"model": str(tiny_model)}, {"model": str(tiny_decoder), "classify_by": "likelihood"}):
        with pytest.raises(RecipeError, match="the name of a class has no others"):
            tunewell.run(
                train=str(tiny_csv), strategy="sdft", output_dir=str(tmp_path / "run"), echo=lambda line: None, **more
            )
    assert not (tmp_path / "run").exists()


def test_an_encoder_decoder_follows_no_request(tiny_t5, tmp_path):
    pytest.importorskip("sacrebleu")
    import tunewell

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"en": f"say {i}", "de": f"sag {i}"}) + "\n" for i in range(30)))
    with pytest.raises(RecipeError, match="asks the base model in words, which an encoder-decoder does not follow"):
        tunewell.run(
            train=str(path), task="translation", source="en", target="de", model=str(tiny_t5), strategy="sdft",
            output_dir=str(tmp_path / "run"), echo=lambda line: None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sdft_template", "{instruktion} {answer}", "did you mean `instruction`?"),
        ("--sdft_template", "{instruction}", "has no {answer}"),
        ("--sdft_min_similarity", "1.5", "sdft_min_similarity"),
        ("--sdft_length_ratio", "0.5", "sdft_length_ratio"),
    ],
)
def test_mistakes_end_with_exit_code_2_and_nothing_written(keys, option, value, message):
    from click.testing import CliRunner

    from tunewell.cli import app

    line = ["run", "--train", keys["train"], "--model", keys["model"], "--strategy", "sdft", option, value]
    done = CliRunner().invoke(app, [*line, "--output_dir", keys["output_dir"]])
    assert done.exit_code == 2
    assert message in done.output
    assert not Path(keys["output_dir"]).exists()
