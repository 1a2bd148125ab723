"""GGUF: the same weights read back, the same tokens, log-probabilities and greedy texts in llama.cpp."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from tunewell.cli import app
from tunewell.errors import ModelError
from tunewell.export.gguf import neighbours, pre_tokenizer, refuse, tensor_name, write_gguf
from tunewell.export.llamacpp import FIRST, compare, leading, readable
from tunewell.export.run import export
from tunewell.tasks.generation.task import load_writer

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def pair(tiny_decoder):
    return AutoModelForCausalLM.from_pretrained(tiny_decoder).eval(), AutoTokenizer.from_pretrained(tiny_decoder)


@pytest.mark.parametrize(("weights", "close"), [("f32", 1e-6), ("f16", 1e-3), ("q8_0", 2e-2)])
def test_the_weights_are_read_back(pair, tmp_path, weights, close):
    """By Transformers' own reader of GGUF."""
    model, tokenizer = pair
    write_gguf(model, tokenizer, tmp_path / "model.gguf", weights=weights)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    theirs = again.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(theirs[name], value, atol=close * float(value.abs().max())), name
    ids = torch.tensor([tokenizer("the hotel was good 123")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, again.eval()(ids).logits, atol=50 * close)


@pytest.mark.parametrize("weights", ["f32", "f16", "q8_0"])
def test_llama_cpp_gives_the_same_answers(tiny_decoder, tmp_path, weights):
    done = export(tiny_decoder, tmp_path / "out", to="gguf", weights=weights)
    assert set(done.files) == {"model.gguf", "README.md"} and done.weights == weights and done.parity is None
    found = done.written
    assert found is not None and not found.real and found.prompts == 6
    assert found.first < {"f32": 2e-2, "f16": 2e-2, "q8_0": 0.2}[weights]
    assert found.leading > 0.5 or weights == "q8_0"
    assert json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))["written"]["first"] == found.first


def test_biases_of_qwen_are_kept(pair, tmp_path):
    _, tokenizer = pair
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 1)
    folder = tmp_path / "qwen"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = export(folder, tmp_path / "out", to="gguf", weights="f32").written
    assert found is not None and found.first < 2e-2 and found.leading > 0.5


def test_rows_of_a_run_are_asked_and_another_model_is_noticed(tiny_decoder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "predictions.csv").write_text("text\n" + "\n".join(f"say word {i}" for i in range(40)), encoding="utf-8")
    writer = load_writer(tiny_decoder)
    write_gguf(writer.model, writer.tokenizer, tmp_path / "m.gguf", weights="f32")
    found = compare(writer, tmp_path / "m.gguf", run, weights="f32")
    assert found.real and found.prompts == 16
    with torch.no_grad():
        writer.model.model.layers[1].mlp.down_proj.weight.mul_(-30)
    with pytest.raises(ModelError, match="finds other tokens likely"):
        compare(writer, tmp_path / "m.gguf", run, weights="f32")
    monkeypatch.setitem(FIRST, "f32", 1e9)
    assert compare(writer, tmp_path / "m.gguf", run, weights="f32").first > 0.1


def test_neighbours_turn_as_halves_did():
    """Rotary embedding of halves, then the order changed = order changed, then rotary embedding of neighbours."""
    rng = np.random.default_rng(0)
    x, angle = rng.normal(size=8), rng.normal(size=4)
    cos, sin = np.cos(angle), np.sin(angle)
    halves = np.concatenate([x[:4] * cos - x[4:] * sin, x[4:] * cos + x[:4] * sin])
    y = neighbours(torch.tensor(x), 1).numpy()
    pairs = np.empty(8)
    pairs[0::2], pairs[1::2] = y[0::2] * cos - y[1::2] * sin, y[1::2] * cos + y[0::2] * sin
    assert np.allclose(neighbours(torch.tensor(halves), 1).numpy(), pairs)


def test_names_and_ways_of_cutting(pair):
    _, tokenizer = pair
    assert pre_tokenizer(tokenizer, "x") == "gpt-2"
    from tokenizers import pre_tokenizers as pre

    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    byte = pre.ByteLevel(add_prefix_space=False)
    other.backend_tokenizer.pre_tokenizer = pre.Sequence([pre.Digits(individual_digits=True), byte])
    assert pre_tokenizer(other, "x") == "smollm"
    other.backend_tokenizer.pre_tokenizer = pre.Whitespace()
    with pytest.raises(ModelError, match="not one that is written as GGUF"):
        pre_tokenizer(other, "x")
    assert tensor_name("model.layers.0.self_attn.rotary_emb.inv_freq") is None
    with pytest.raises(ModelError, match="no place for"):
        tensor_name("model.layers.0.block_sparse_moe.gate.weight")
    assert leading("abc", "abd") == pytest.approx(2 / 3)


def test_mistakes_leave_nothing(tiny_classifier, tiny_t5, tiny_decoder, tmp_path):
    for source, said in ((tiny_classifier, "is no decoder"), (tiny_t5, "is no decoder")):
        with pytest.raises(ModelError, match=said):
            export(source, tmp_path / "out", to="gguf")
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    model.config.model_type = "gpt2"
    with pytest.raises(ModelError, match="`gpt2` is not written as GGUF"):
        refuse(model.config, tokenizer, "x")
    model.config.model_type = "llama"
    model.config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4}
    with pytest.raises(ModelError, match="rope yarn"):
        refuse(model.config, tokenizer, "x")
    result = CliRunner().invoke(app, ["export", str(tiny_classifier), "--to", "gguf", "-o", str(tmp_path / "out")])
    assert result.exit_code == 2 and "is no decoder" in result.output
    assert list(tmp_path.iterdir()) == []


def saved(folder, tokenizer, *, more=0, config=None, change=lambda model: None):
    """A random decoder with `more` entries of its vocabulary than the tokenizer has."""
    torch.manual_seed(1)
    config = config or Qwen2Config(
        vocab_size=len(tokenizer) + more, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    change(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows_in(run, texts):
    run.mkdir()
    (run / "predictions.csv").write_text("text\n" + "\n".join(texts) + "\n", encoding="utf-8")
    return run


def test_names_of_unused_entries_are_text_like_any_other(pair, tmp_path):
    _, tokenizer = pair
    folder = saved(tmp_path / "m", tokenizer, more=40)
    run = rows_in(tmp_path / "run", [f"what is [PAD{len(tokenizer) + 3}] here", "and [PAD410]"])
    writer = load_writer(folder)
    write_gguf(writer.model, writer.tokenizer, tmp_path / "m.gguf", weights="f32")
    found = compare(writer, tmp_path / "m.gguf", run, weights="f32")
    assert found.real and found.first < 2e-2


def test_tokens_that_the_model_has_no_embedding_for_are_left_out(pair, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(pair[1].name_or_path)
    folder = saved(tmp_path / "m", tokenizer)
    tokenizer.add_tokens(["<extra>", "<more>"])
    tokenizer.pad_token = "<more>"  # beyond the vocabulary of the model, and never read
    tokenizer.save_pretrained(folder)
    writer = load_writer(folder)
    write_gguf(writer.model, writer.tokenizer, tmp_path / "m.gguf", weights="f32")
    assert compare(writer, tmp_path / "m.gguf", tmp_path, weights="f32").first < 2e-2


def test_an_answer_that_ends_at_once(pair, tmp_path):
    def ends(model):
        with torch.no_grad():
            model.model.embed_tokens.weight.copy_(torch.ones(32))
            for name, p in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    p.zero_()
            model.lm_head.weight.zero_()
            model.lm_head.weight[pair[1].eos_token_id] = 1.0

    folder = saved(tmp_path / "m", pair[1], change=ends)
    found = export(folder, tmp_path / "out", to="gguf", weights="f32").written
    assert found is not None and found.same == 1.0 and found.first < 2e-2


def test_a_prompt_that_the_window_cuts_in_a_character_is_asked_as_tokens(pair, tmp_path):
    folder = saved(tmp_path / "m", pair[1])
    writer = load_writer(folder)
    long = "北京很大" * 12 + " the end"
    writer.max_length = next(
        n for n in range(20, 60)
        if "\ufffd" in writer.tokenizer.decode(writer.prompt(writer.conversation(long))[-n:])
    )  # fmt: skip
    ids = writer.prompt(writer.conversation(long))
    assert readable(writer.tokenizer, ids) == ids
    run = rows_in(tmp_path / "run", [long])
    write_gguf(writer.model, writer.tokenizer, tmp_path / "m.gguf", weights="f32")
    assert compare(writer, tmp_path / "m.gguf", run, weights="f32").first < 2e-2


def test_a_tokenizer_that_begins_texts_by_itself_begins_them_once(pair, tmp_path):
    from tokenizers import processors

    tokenizer = AutoTokenizer.from_pretrained(pair[1].name_or_path)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    writer = load_writer(saved(tmp_path / "m", tokenizer))
    assert writer.tokenizer("a")["input_ids"][0] == writer.tokenizer.bos_token_id
    write_gguf(writer.model, writer.tokenizer, tmp_path / "m.gguf", weights="f32")
    assert compare(writer, tmp_path / "m.gguf", tmp_path, weights="f32").first < 2e-2


def test_sliding_windows_are_refused_in_every_family(pair):
    config = Qwen2Config(use_sliding_window=True, sliding_window=64, num_hidden_layers=2, max_window_layers=0)
    with pytest.raises(ModelError, match="sliding window"):
        refuse(config, pair[1], "x")
    refuse(Qwen2Config(num_hidden_layers=2), pair[1], "x")


def test_a_run_tuned_with_adapters(tiny_decoder, tmp_path):
    """Adapters are merged in model/, so that the file is the tuned model; its prompts are the run's test rows."""
    import tunewell

    data = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": f"say {i} red", "completion": f"red {i}"}) for i in range(40)]
    data.write_text("\n".join(lines), encoding="utf-8")
    run = tunewell.run(
        train=str(data), model=str(tiny_decoder), task="text-generation", strategy="lora", learning_rate=1e-2,
        max_steps=30, max_new_tokens=4, probes="none", bf16=False, output_dir=str(tmp_path / "run"), progress=False,
        echo=lambda line: None,
    )  # fmt: skip
    found = export(run.dir, tmp_path / "out", to="gguf", weights="f32").written
    assert found is not None and found.real and found.first < 2e-2
