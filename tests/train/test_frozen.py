"""Frozen layers that answer from memory: the same answers, gradients and tuned weights, in every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset

from tunewell.strategies.layers import depths
from tunewell.train.batching import Collator
from tunewell.train.frozen import Kept, blocks_of, frozen_layers, kept_below, same

SIZES = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 60}
BERT = {"hidden_size": 16, "num_labels": 3, "pad_token_id": 0, **SIZES}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
CONFIGS = [
    transformers.BertConfig(**BERT),
    transformers.RobertaConfig(**BERT, max_position_embeddings=64),
    transformers.ElectraConfig(**BERT),
    transformers.DistilBertConfig(
        dim=16, n_layers=3, n_heads=2, hidden_dim=32, vocab_size=60, num_labels=3, pad_token_id=0
    ),
    transformers.MPNetConfig(**BERT),
    transformers.DebertaV2Config(**BERT),
    transformers.ModernBertConfig(**BERT, **SPECIAL),
    transformers.LlamaConfig(**BERT, num_key_value_heads=2),
    transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=60, num_labels=3, pad_token_id=0),
]


def rows(n: int = 24) -> Dataset:
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 60, rng.integers(3, 12)).tolist() for _ in range(n)]
    return Dataset.from_dict({"input_ids": ids, "labels": rng.integers(0, 3, n).tolist(), "row": list(range(n))})


def without_dropout(config):
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "embd_pdrop",
                 "attn_pdrop", "resid_pdrop", "seq_classif_dropout"):  # fmt: skip
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def freeze(model, lowest: int):
    places = depths(model)
    for name, p in model.named_parameters():
        p.requires_grad_(places[name] >= lowest)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.model_type)
@pytest.mark.parametrize("lowest", [3, 4], ids=["last layer", "head only"])
def test_the_same_answers_and_gradients(config, lowest, tmp_path):
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(without_dropout(config))
    freeze(model, lowest)
    assert frozen_layers(model) == lowest - 1
    encoded, collate = rows(), Collator(0, float_labels=False)
    batch = collate([encoded[i] for i in (7, 2, 19, 11)])
    labels, numbers = batch.pop("labels"), batch.pop("row")
    model.train()

    def learn() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        logits = model(**batch).logits
        torch.nn.functional.cross_entropy(logits, labels).backward()
        return logits.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad and p.grad is not None]

    names, (expected, gradients) = [n for n, _ in model.named_parameters()], learn()
    ran: list[int] = []
    first = blocks_of(model)[0]
    inner = next(m for m in first.modules() if isinstance(m, torch.nn.Linear) or type(m).__name__ == "Conv1D")
    if config.model_type == "mpnet" and lowest == 3:  # its position bias is tuned, and all layers read it
        with kept_below(model, encoded, collate, bf16=False, folder=tmp_path) as kept:
            assert kept is None
        return
    with kept_below(model, encoded, collate, bf16=False, folder=tmp_path) as kept:
        assert kept is not None and kept.layers == lowest - 1
        inner.register_forward_hook(lambda *_: ran.append(1))
        with kept.reading(numbers, batch["attention_mask"]):
            found, theirs = learn()
        assert not ran  # the frozen layers did nothing
        assert torch.allclose(found, expected, atol=1e-5)
        assert len(theirs) == len(gradients) > 0
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(theirs, gradients, strict=True))
        other, _ = learn()  # any other batch goes through all of it
        assert ran and torch.allclose(other, expected, atol=1e-6)
        assert [n for n, _ in model.named_parameters()] == names
    again, _ = learn()
    assert torch.allclose(again, expected, atol=1e-6)
    assert "forward" not in vars(first)


def test_frozen_layers_have_no_dropout(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(**BERT, hidden_dropout_prob=0.5, classifier_dropout=0.0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    freeze(model, 4)
    encoded, collate = rows(), Collator(0, float_labels=False)
    batch = collate([encoded[i] for i in range(4)])
    batch.pop("labels")
    numbers = batch.pop("row")
    model.train()
    with kept_below(model, encoded, collate, bf16=False, folder=tmp_path) as kept, torch.no_grad():
        assert kept is not None
        with kept.reading(numbers, batch["attention_mask"]):
            found = model(**batch).logits
        assert model.training and model.base_model.encoder.layer[0].training
    assert torch.allclose(found, model.eval()(**batch).logits, atol=1e-5)


def test_what_is_large_goes_into_a_file_and_what_is_too_large_is_not_kept(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(**BERT))
    freeze(model, 3)
    encoded, collate = rows(), Collator(0, float_labels=False)
    monkeypatch.setattr("tunewell.train.frozen.IN_MEMORY", 100)
    with kept_below(model, encoded, collate, bf16=False, folder=tmp_path / "cache") as kept:
        assert kept is not None and isinstance(kept.states, np.memmap)
        assert (tmp_path / "cache" / "frozen.dat").stat().st_size == kept.states.nbytes
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.setattr("tunewell.train.frozen.ON_DISK", 100)
    with kept_below(model, encoded, collate, bf16=False, folder=tmp_path / "cache") as kept:
        assert kept is None
    assert "forward" not in vars(blocks_of(model)[0])


def test_nothing_is_kept_where_it_would_not_be_the_same(tmp_path):
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(**BERT))
    encoded, collate = rows(), Collator(0, float_labels=False)
    with kept_below(model, encoded, collate, bf16=False, folder=tmp_path) as kept:
        assert kept is None  # all of it is tuned
    freeze(model, 3)
    model.base_model.embeddings.LayerNorm.weight.requires_grad_(True)  # below what is frozen something learns
    assert not same(Kept(model, blocks_of(model), 2), encoded, collate)
    freeze(model, 3)
    kept = Kept(model, blocks_of(model), 2)
    assert same(kept, encoded, collate)
    second = model.base_model.encoder.layer[1]
    original = type(model.base_model.encoder).forward

    def looks_below(self, hidden_states, *given, **options):  # a model that reads a frozen layer's input elsewhere too
        out = original(self, hidden_states, *given, **options)
        out.last_hidden_state = out.last_hidden_state + self.layer[0](hidden_states)
        return out

    model.base_model.encoder.forward = looks_below.__get__(model.base_model.encoder)
    assert not same(Kept(model, blocks_of(model), 2), encoded, collate)
    assert "forward" not in vars(second)


@pytest.mark.parametrize(
    "config",
    [
        transformers.LongformerConfig(**BERT, **SPECIAL, attention_window=4, max_position_embeddings=64),
        transformers.XLNetConfig(d_model=16, n_layer=3, n_head=2, d_inner=32, vocab_size=60, num_labels=3),
    ],
    ids=lambda c: c.model_type,
)
def test_layers_that_answer_in_another_shape_compute_as_always(config, tmp_path):
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    freeze(model, 3)
    with kept_below(model, rows(), Collator(0, float_labels=False), bf16=False, folder=tmp_path) as kept:
        assert kept is None
    assert "forward" not in vars(blocks_of(model)[0])


def test_what_reads_padding_is_noticed_among_rows_of_one_length(tmp_path):
    """The first rows are of one length, so that only longer ones show that a layer mixes in what stands at padding."""
    config = transformers.FNetConfig(hidden_size=16, num_hidden_layers=3, intermediate_size=32, vocab_size=60)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    freeze(model, 3)
    ids = [[7, 8, 9]] * 3 + [[5] * n for n in range(4, 12)]
    encoded = Dataset.from_dict({"input_ids": ids, "labels": [0] * len(ids), "row": list(range(len(ids)))})
    with kept_below(model, encoded, Collator(0, float_labels=False), bf16=False, folder=tmp_path) as kept:
        assert kept is None


@pytest.mark.parametrize("where", ["reading", "tuning"])
def test_nothing_stays_after_an_error(where, tmp_path, monkeypatch):
    model = transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(**BERT))
    freeze(model, 3)
    monkeypatch.setattr("tunewell.train.frozen.IN_MEMORY", 100)
    own, calls = Kept.below, []

    def below(self, inputs):
        calls.append(1)
        if where == "reading" and len(calls) > 1:  # the first call is the trial
            assert (tmp_path / "frozen.dat").is_file()
            raise KeyboardInterrupt
        return own(self, inputs)

    monkeypatch.setattr(Kept, "below", below)

    def broken_off() -> None:
        with kept_below(model, rows(), Collator(0, float_labels=False), bf16=False, folder=tmp_path) as kept:
            assert kept is not None and where == "tuning"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert not list(tmp_path.iterdir()) and "forward" not in vars(blocks_of(model)[0])


def test_a_tuning_that_breaks_off_leaves_model_and_folder_as_they_were(tiny_model, make_reviews, tmp_path, monkeypatch):
    import pandas

    import tunewell
    from tunewell.train.trainer import TunewellTrainer

    seen: list[object] = []

    def broken(self, *given, **options):
        seen.extend([self.model, [m.p for m in self.model.modules() if isinstance(m, torch.nn.Dropout)]])
        assert list((tmp_path / "run").rglob("frozen.dat")) and "forward" in vars(blocks_of(self.model)[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("tunewell.train.frozen.IN_MEMORY", 100)
    monkeypatch.setattr(TunewellTrainer, "train", broken)
    data = tmp_path / "data.csv"
    pandas.DataFrame(make_reviews(60), columns=["text", "label"]).to_csv(data, index=False)
    with pytest.raises(KeyboardInterrupt) as held:  # whoever holds the error holds all that was at work
        tunewell.run(
            train=str(data), model=str(tiny_model), strategy="freeze", freeze="last_1", max_steps=2, probes="none",
            explain=0, attention_dropout=0.0, output_dir=str(tmp_path / "run"), progress=False, echo=lambda line: None,
        )  # fmt: skip
    model, within = seen
    assert held.value is not None and "forward" not in vars(blocks_of(model)[0])
    assert 0.0 in within and 0.0 not in [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert not list((tmp_path / "run").rglob("frozen.dat"))


@pytest.mark.parametrize("mode", ["head_only", "last_1"])
def test_a_tuning_is_the_same_with_and_without(mode, tiny_model, make_reviews, tmp_path, monkeypatch):
    import pandas

    import tunewell

    data = tmp_path / "data.csv"
    pandas.DataFrame(make_reviews(80), columns=["text", "label"]).to_csv(data, index=False)
    base = tmp_path / "base"
    model = transformers.AutoModel.from_pretrained(
        tiny_model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model.save_pretrained(base)
    transformers.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)

    def tuned(name: str) -> tuple[dict, list[str], object]:
        from safetensors.torch import load_file

        said: list[str] = []
        run = tunewell.run(
            train=str(data), model=str(base), strategy="freeze", freeze=mode, max_steps=6, probes="none", bf16=False,
            explain=0, learning_rate=1e-2, output_dir=str(tmp_path / name), progress=False, echo=said.append,
        )  # fmt: skip
        return load_file(run.dir / "model" / "model.safetensors"), said, run

    weights, said, run = tuned("with")
    assert any("is computed once" in line for line in said)
    monkeypatch.setattr("tunewell.train.frozen.frozen_layers", lambda model: 0)
    expected, said, other = tuned("without")
    assert not any("is computed once" in line for line in said)
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        if name.endswith("key.bias"):
            continue  # softmax does not see it: its gradient is rounding, which Adam makes a step of
        assert torch.allclose(value, expected[name], atol=2e-5), name
    assert run.training.accounting.flops < other.training.accounting.flops
