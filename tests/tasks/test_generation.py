"""Instruction tuning: formats, which tokens carry loss, likelihoods, scores, and a whole run."""

from __future__ import annotations

import json
import math
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from tunewell.data.load import Loaded, load
from tunewell.errors import DataError, ModelError, RecipeError
from tunewell.recipe import Recipe
from tunewell.tasks.generation.audit import encode_rows
from tunewell.tasks.generation.conversations import conversations
from tunewell.tasks.generation.loss import IGNORED, answer_loss, by_row, shifted
from tunewell.tasks.generation.memory import Memory
from tunewell.tasks.generation.rendering import end_ids, render
from tunewell.tasks.generation.score import exact, longest_common, rouge_l, token_f1, words
from tunewell.tasks.generation.writers import CausalWriter, Decoding


def loaded(rows) -> Loaded:
    """Rows as they come from a JSONL file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.jsonl"
        path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
        return replace(load(path), source="data.jsonl")


def turn(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


@pytest.fixture(scope="module")
def tokenizer(tiny_decoder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_decoder)


@pytest.fixture(scope="module")
def writer(tiny_decoder, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    return CausalWriter(model, tokenizer, 128, Decoding(max_new_tokens=8))


# ---------------------------------------------------------------- formats

ASKED = [turn("user", "say one"), turn("assistant", "one")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": ASKED}, ASKED),
        ({"messages": json.dumps(ASKED)}, ASKED),
        ({"conversations": [{"from": "human", "value": "say one"}, {"from": "gpt", "value": "one"}]}, ASKED),
        ({"prompt": "say one", "completion": "one"}, ASKED),
        ({"prompt": [ASKED[0]], "completion": [ASKED[1]]}, ASKED),
        ({"instruction": "say", "input": "one", "output": "one"}, [turn("user", "say\n\none"), ASKED[1]]),
        ({"instruction": "say one", "input": "", "output": "one"}, ASKED),
        ({"instruction": "say one", "output": "one", "system": "be brief"}, [turn("system", "be brief"), *ASKED]),
        (
            {"messages": [turn("user", "say one"), turn("assistant", "two", weight=0), turn("user", "no"),
                          turn("assistant", "one", weight=1)]},
            [turn("user", "say one"), turn("assistant", "two", weight=0), turn("user", "no"), turn("assistant", "one")],
        ),
    ],
)  # fmt: skip
def test_every_format_is_a_conversation(row, expected):
    rows, dropped, _ = conversations(loaded([row]), Recipe())
    assert json.loads(rows[0]["messages"]) == expected
    assert rows[0]["label"] == "one" and not dropped


def test_columns_may_be_named():
    rows, _, _ = conversations(loaded([{"ask": "say one", "say": "one"}]), Recipe(source="ask", target="say"))
    assert json.loads(rows[0]["messages"]) == ASKED


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [turn("usr", "x"), turn("assistant", "y")]}, "unknown role 'usr'"),
        ({"messages": "hello"}, "is not a list of messages"),
        ({"messages": json.dumps({"role": "user"})}, "is not a list of messages"),
        ({"text": "x"}, "no format of instructions fits"),
    ],
)
def test_rows_that_are_no_conversation(row, message):
    with pytest.raises(DataError, match=message):
        conversations(loaded([row]), Recipe())


def test_a_named_column_must_be_there():
    with pytest.raises(DataError, match="no column `mesages`") as caught:
        conversations(loaded([{"messages": ASKED}]), Recipe(messages="mesages"))
    assert "did you mean `messages`?" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [turn("user", "x")]}, "no answer of the assistant"),
        ({"messages": [turn("user", "x"), turn("assistant", " ")]}, "no answer of the assistant"),
        ({"messages": [turn("assistant", "hello")]}, "no question before the answer"),
        ({"messages": [turn("user", " "), turn("assistant", "hello")]}, "no question before the answer"),
        ({"messages": []}, "no answer of the assistant"),
    ],
)
def test_rows_without_an_answer_are_counted(row, reason):
    good = {"messages": ASKED}
    rows, dropped, _ = conversations(loaded([good, row]), Recipe())
    assert len(rows) == 1 and dropped == {reason: 1}


def test_what_follows_the_last_answer_is_left_out():
    rows, _, mended = conversations(loaded([{"messages": [*ASKED, turn("user", "thanks")]}]), Recipe())
    assert json.loads(rows[0]["messages"]) == ASKED
    assert mended["what follows the last answer was left out"] == 1


# ---------------------------------------------------------------- which tokens carry loss


def learnt_text(tokenizer, rendered) -> str:
    return tokenizer.decode([i for i, y in zip(rendered.ids, rendered.learnt, strict=True) if y])


def test_only_answers_and_their_ends_are_learnt(tokenizer):
    messages = [turn("system", "be brief"), turn("user", "say one"), turn("assistant", "one"), turn("user", "two"),
                turn("assistant", "two three")]  # fmt: skip
    r = render(tokenizer, messages)
    assert learnt_text(tokenizer, r) == "one<|im_end|>two three<|im_end|>"
    assert r.ended and not r.unlearnt
    whole = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    assert tokenizer.decode(r.ids) == whole.rstrip("\n")  # nothing after the end token is read


def test_weight_zero_carries_no_loss(tokenizer):
    messages = [turn("user", "say"), turn("assistant", "two", weight=0), turn("user", "no"), turn("assistant", "one")]
    assert learnt_text(tokenizer, render(tokenizer, messages)) == "one<|im_end|>"


def test_a_template_that_strips_spaces_is_followed(tokenizer):
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = own.chat_template.replace("m['content']", "m['content'].strip()")
    r = render(own, [turn("user", "say one"), turn("assistant", "  one \n")])
    assert learnt_text(own, r) == "one<|im_end|>"


def test_without_a_template_the_end_is_added_and_learnt(tokenizer):
    import copy

    from tunewell.tasks.generation.rendering import ensure_template

    own = copy.deepcopy(tokenizer)
    own.chat_template = None
    assert not ensure_template(own)
    r = render(own, [turn("user", "say one"), turn("assistant", "one")])
    assert learnt_text(own, r).strip() == "one<|im_end|>"
    assert tokenizer.decode(r.ids).startswith("User: say one\nAssistant:")


def test_answers_that_the_template_hides_later_are_counted(tokenizer):
    """Templates that take the reasoning out of earlier turns show the last answer alone as it is."""
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = own.chat_template.replace(
        "m['content']", "(m['content'] if loop.last or m['role'] == 'user' else '')"
    )
    r = render(own, [turn("user", "a"), turn("assistant", "one"), turn("user", "b"), turn("assistant", "two")])
    assert learnt_text(own, r) == "two<|im_end|>" and r.unlearnt == 1


def test_a_template_that_fails_is_named(tokenizer):
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="roles must alternate"):
        render(own, ASKED)


def test_the_end_tokens_are_the_models_and_the_templates(tokenizer):
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in end_ids(tokenizer)


def rows_of(*conversation: list[dict]) -> tuple[Dataset, list]:
    rows = [{"source": "d.jsonl", "row": i} for i in range(1, len(conversation) + 1)]
    return Dataset.from_list(rows), list(conversation)


def test_the_audit_counts_what_carries_loss(writer):
    rows, messages = rows_of(ASKED, [turn("user", "room " * 80), turn("assistant", "one two")])
    writer.max_length, before = 40, writer.max_length
    try:
        encoded, used, audit = encode_rows(writer, rows, messages, "truncate")
        assert audit["rows_too_long"] == 1 and audit["rows_that_learn_to_end"] == 2
        assert [len(e.ids) for e in encoded][1] == 40
        kept = [y for y in encoded[1].labels if y != IGNORED]
        assert writer.tokenizer.decode(kept) == "one two<|im_end|>"  # the beginning is cut, never the answer
        _, used, audit = encode_rows(writer, rows, messages, "drop")
        assert used.tolist() == [0] and audit["rows_with_loss"] == 1
        with pytest.raises(DataError, match="1 rows are longer than 40 tokens") as caught:
            encode_rows(writer, rows, messages, "error")
        assert caught.value.where == "d.jsonl:2"
        with pytest.raises(DataError, match="all 1 rows are longer"):
            encode_rows(writer, rows.select([1]), messages[1:], "drop")
    finally:
        writer.max_length = before
    marked = "".join(part["text"] for part in audit["sample"] if part["learnt"])
    assert marked == "one<|im_end|>"


def test_rows_without_loss_are_an_error_not_a_nan(writer):
    rows, messages = rows_of(ASKED, [turn("user", "x"), turn("assistant", "y", weight=0)])
    with pytest.raises(DataError, match="1 rows have no token that carries loss") as caught:
        encode_rows(writer, rows, messages, "truncate")
    assert caught.value.where == "d.jsonl:2"


def test_an_answer_too_long_for_the_window_loses_its_end(writer):
    encoded = CausalWriter(writer.model, writer.tokenizer, 24).encode(
        [turn("user", "x"), turn("assistant", "room " * 60)]
    )
    assert len(encoded.ids) == 24 and not encoded.ended and encoded.labels[0] == IGNORED


# ---------------------------------------------------------------- loss and likelihood


def test_losses_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1.0, 1.0, 1.0]]]))
    labels = torch.tensor([[0, 2, IGNORED]])
    nats, tokens, right = by_row(logits, labels)
    assert nats.item() == pytest.approx(-math.log(0.5) - math.log(0.1))
    assert (tokens.item(), right.item()) == (2, 1)


def test_the_loss_is_what_transformers_computes(writer):
    rows = [writer.encode(m)._asdict() for m in (ASKED, [turn("user", "say"), turn("assistant", "one two three four")])]
    batch = writer.collate(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        outputs = writer.model(**batch)
        ours = answer_loss(outputs, labels, shift=True).mean()
        theirs = writer.model(**batch, labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_likelihood_does_not_depend_on_the_batch(writer):
    rows = [writer.encode(m) for m in (ASKED, [turn("user", "room " * 20), turn("assistant", "one two three")])]
    together = writer.likelihood(rows)
    alone = [writer.likelihood([r]) for r in rows]
    assert np.allclose(together.nats, [a.nats[0] for a in alone], rtol=1e-4)
    assert together.bytes.tolist() == [3, 13]
    assert together.tokens.tolist() == [sum(y != IGNORED for y in r.labels) for r in rows]


def test_rows_of_a_batch_do_not_see_each_other(writer):
    """The gradient of a row's loss with respect to another row's input is zero: nothing is packed."""
    rows = [writer.encode(m)._asdict() for m in (ASKED, [turn("user", "b c"), turn("assistant", "two")])]
    batch = writer.collate(rows)
    labels = batch.pop("labels")
    vectors = writer.model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    out = writer.model(inputs_embeds=vectors, attention_mask=batch["attention_mask"])
    by_row(*shifted(out.logits, labels))[0][0].backward()
    assert vectors.grad is not None
    assert vectors.grad[0].abs().sum() > 0 and vectors.grad[1].abs().sum() == 0


def test_writing_does_not_depend_on_the_batch(writer):
    prompts = [[turn("user", "say one")], [turn("user", "the hotel was good and the crew was rude")]]
    together, _ = writer.write(prompts)
    assert together == [writer.write([p])[0][0] for p in prompts]


# ---------------------------------------------------------------- scores


def test_scores_by_hand():
    assert words("It's a test-case, 你好") == ["it", "s", "a", "test", "case", "你", "好"]
    assert token_f1("a b b", "b b c") == pytest.approx(2 / 3)
    assert exact("a\n b", "a b") == 1
    assert (token_f1("", ""), token_f1("a", ""), rouge_l("!", "?")) == (1, 0, 1)
    assert rouge_l("the cat sat on the mat", "the cat lay on a mat") == pytest.approx(4 / 6)


def test_longest_common_is_that_of_a_plain_search():
    rng = random.Random(0)

    def slow(a, b):
        if not a or not b:
            return 0
        return slow(a[1:], b[1:]) + 1 if a[0] == b[0] else max(slow(a[1:], b), slow(a, b[1:]))

    for _ in range(20):
        a, b = (rng.choices("abc", k=rng.randint(0, 7)) for _ in range(2))
        assert longest_common(a, b) == slow(a, b)


def test_memory_recalls_the_nearest():
    memory = Memory(["good morning", "good night"], ["guten Morgen", "gute Nacht"])
    assert memory.recall(["good night!", "morning"]) == ["gute Nacht", "guten Morgen"]


# ---------------------------------------------------------------- retention


def test_bits_per_byte_by_hand(tiny_decoder, tokenizer):
    """A model of uniform guesses needs log2 V bits a token."""
    from transformers import AutoModelForCausalLM

    from tunewell.retention.forgetting import compare, point
    from tunewell.retention.language import LanguageSuite, bits, surprise_of

    model = AutoModelForCausalLM.from_pretrained(tiny_decoder).eval()
    texts = ("the hotel was good", "the crew was rude today and the room")
    suite = LanguageSuite("report", (bits("news", "News", texts),))
    base = suite.measure(surprise_of(model, tokenizer))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    flat = suite.measure(surprise_of(model, tokenizer))
    tokens = sum(len(tokenizer(t)["input_ids"]) - 1 for t in texts)
    size = sum(len(t.encode()) for t in texts)
    assert flat["news"].value == pytest.approx(tokens * math.log2(model.config.vocab_size) / size, rel=1e-5)
    retention = compare(base, flat)
    assert retention.mean.value == pytest.approx(min(1, base["news"].value / flat["news"].value))
    assert retention.probes[0].retention.value == pytest.approx(base["news"].value / flat["news"].value)
    assert point(base, base)[0] == 1.0


# ---------------------------------------------------------------- a whole run


def instructions(n: int) -> list[dict]:
    colours = ["red", "blue", "green", "black", "white"]
    things = ["room", "seat", "meal", "phone", "hotel", "crew"]
    rows = []
    for i in range(n):
        colour, thing = colours[i % 5], things[i // 5 % 6]
        rows.append({"prompt": f"say {colour} {thing} {i}", "completion": f"the {thing} was {colour}"})
    return rows


@pytest.fixture(scope="module")
def general(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("general") / "general.txt"
    lines = [
        f"the {a} was {b} today number {i}" for i in range(10) for a in ("hotel", "crew") for b in ("good", "rude")
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def tuned(tiny_decoder, general, tmp_path_factory):
    import tunewell

    folder = tmp_path_factory.mktemp("sft")
    path = folder / "sft.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in instructions(48)), encoding="utf-8")
    lines: list[str] = []
    run = tunewell.run(
        train=str(path), model=str(tiny_decoder), output_dir=str(folder / "run"), probes="none", probe_files=general,
        learning_rate=1e-2, num_train_epochs=3, per_device_train_batch_size=4, max_new_tokens=12, keep=0.05,
        generation_samples=8, bf16=False, echo=lines.append, progress=False, raise_on_gate=False,
    )  # fmt: skip
    return run, lines


def test_a_run_learns_and_is_compared_with_the_base(tuned):
    run, lines = tuned
    n = run.summary.n_train
    assert any(line.startswith(f"audit: {n} of {n} rows carry loss") for line in lines), lines
    assert run.summary.task == "text-generation" and run.summary.metric == "token_accuracy"
    base = next(b for b in run.baselines if b.name == "base-model").evaluation
    assert run.metrics["bits_per_byte"].value < base.metrics["bits_per_byte"].value
    assert run.summary.base == base.headline
    assert run.summary.test.value > base.headline.value
    assert run.metrics["perplexity"].value == pytest.approx(math.exp(run.metrics["loss"].value))
    assert run.metrics["rouge_l"].n == 8
    assert [p.metric for p in run.retention.probes] == ["bits per byte"]
    assert run.summary.strategy == ("average",)
    page = run.report_path.read_text(encoding="utf-8")
    assert "What carries loss" in page and "<mark>" in page and "Answers side by side" in page


def test_the_saved_model_is_plain_transformers(tuned):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, _ = tuned
    model = AutoModelForCausalLM.from_pretrained(run.model_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model_path)
    prompt = tokenizer.apply_chat_template(
        [turn("user", "say red room 0")], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert run.predict(["say red room 0"]) == [text]


def test_predict_and_evaluate_read_prompts(tuned, tmp_path):
    from click.testing import CliRunner

    from tunewell.cli import app
    from tunewell.run import evaluate_run

    run, _ = tuned
    path = tmp_path / "new.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in instructions(6)), encoding="utf-8")
    result = CliRunner().invoke(app, ["predict", str(run.dir), str(path), "-o", str(tmp_path / "out.jsonl")])
    assert result.exit_code == 0, result.output
    rows = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["prediction"] for r in rows] == run.predict([r["prompt"] for r in rows])
    assert evaluate_run(run.dir, str(path)).metrics["exact_match"].n == 6


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"strategy": "mas"}, RecipeError, "needs labels or sentence embeddings"),
        ({"loss": "focal"}, RecipeError, "`loss` does not go with text-generation"),
        ({"metric": "perplexity"}, RecipeError, "lower is better"),
        ({"metric": "accuracy"}, RecipeError, "unknown metric"),
        ({"max_length": 4096}, RecipeError, "beyond the model's window"),
        ({"probes": "similarity"}, RecipeError, "unknown probe `similarity` for a decoder"),
        ({"overlength": "cut"}, RecipeError, "overlength"),
        ({"num_beams": 0}, RecipeError, "num_beams"),
    ],
)
def test_keys_that_do_not_fit(keys, error, message, tiny_decoder, tmp_path):
    import tunewell

    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in instructions(20)), encoding="utf-8")
    with pytest.raises(error, match=message):
        tunewell.run(
            **{"train": str(path), "model": str(tiny_decoder), "output_dir": str(tmp_path / "run"), **keys},
            echo=lambda line: None,
        )


def test_an_encoder_writes_no_answers(tiny_model, tmp_path):
    import tunewell

    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in instructions(20)), encoding="utf-8")
    with pytest.raises(ModelError, match="is an encoder, not a decoder"):
        tunewell.run(train=str(path), model=str(tiny_model), output_dir=str(tmp_path / "run"), echo=lambda line: None)


@pytest.mark.parametrize(
    "strategy",
    ["lora", "l2sp", "recadam", "distill", "rehearse", "ema", "swa", "sam", "llrd", "freeze", "lines", "average"],
)
def test_strategies_for_decoders(tiny_decoder, tmp_path, strategy):
    """Each strategy that is let in tunes the decoder and gives a plain model that writes."""
    import tunewell

    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in instructions(24)), encoding="utf-8")
    run = tunewell.run(
        train=str(path), model=str(tiny_decoder), output_dir=str(tmp_path / "run"), probes="none", strategy=strategy,
        max_steps=2, per_device_train_batch_size=4, max_new_tokens=4, generation_samples=2, freeze="embeddings",
        bf16=False, echo=lambda line: None, progress=False,
    )  # fmt: skip
    assert run.summary.strategy == (strategy,)
    assert len(run.predict(["say red"])) == 1


def test_layers_computed_again_and_batches_that_fit_write_the_same_model(tiny_decoder, tmp_path, monkeypatch):
    """As by hand with two rows a batch and two batches a step."""
    from safetensors.torch import load_file

    import tunewell
    from tunewell.train import room

    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in instructions(24)), encoding="utf-8")

    def weights(name, **keys):
        run = tunewell.run(
            train=str(path), model=str(tiny_decoder), output_dir=str(tmp_path / name), probes="none", strategy="plain",
            max_steps=3, max_new_tokens=4, generation_samples=2, bf16=False, echo=lambda line: None, progress=False,
            **keys,
        )  # fmt: skip
        return load_file(str(run.model_path / "model.safetensors"))

    by_hand = weights("hand", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    seen, own = [], room.kept_bytes
    monkeypatch.setattr(room, "kept_bytes", lambda *asked: seen.append(own(*asked)) or seen[-1])
    trainable = sum(w.numel() for w in by_hand.values())
    monkeypatch.setattr(
        room, "free_bytes", lambda device: (room.A_WEIGHT * trainable + 3 * room.BESIDE * seen[-1]) / room.USABLE
    )
    found = weights("found", per_device_train_batch_size=4, auto_find_batch_size=True, activation_checkpointing=True)
    assert [json.loads(p.read_text()) for p in tmp_path.rglob(room.CHOSEN)] == [{"rows": 2, "of": 4}]
    assert all(torch.equal(by_hand[k], found[k]) for k in by_hand)


@pytest.mark.slow
@pytest.mark.assets
def test_the_packaged_decoder_is_unpacked_and_writes():
    from pathlib import Path as Folder

    from tunewell.models.load import locate
    from tunewell.tasks.generation.task import load_writer

    folder = Folder(locate("SmolLM2-135M-Instruct"))
    assert (folder / "model.safetensors").is_file()
    packaged = load_writer(folder)
    assert packaged.tokenizer.chat_template and packaged.tokenizer.model_max_length == 8192
    rendered = render(packaged.tokenizer, ASKED)
    assert learnt_text(packaged.tokenizer, rendered) == "one<|im_end|>"
    packaged.decoding = Decoding(max_new_tokens=16)
    (text,), _ = packaged.write([[turn("user", "What is the capital of France?")]])
    assert "Paris" in text
