"""Every kind of model that TensorFlow has here: PyTorch's logits and gradients, whichever way rows are padded."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig, AutoModelForSequenceClassification

import tunewell
from tunewell.backends.tensorflow.fits import MODELS, refuse_model
from tunewell.cli import app
from tunewell.errors import ModelError
from tunewell.export.run import export
from tunewell.predict import load_predictor

WORDS, PAD = 60, 3
SMALL = {"vocab_size": WORDS, "pad_token_id": PAD, "num_labels": 3, "initializer_range": 0.3}
BERT = SMALL | {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
LLAMA = SMALL | {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 40, "max_position_embeddings": 40,
}  # fmt: skip
GPT2 = SMALL | {
    "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    "resid_pdrop": 0.0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", BERT),
    "electra": ("electra", BERT | {"embedding_size": 16}),
    "roberta": ("roberta", BERT),
    "xlm-roberta": ("xlm-roberta", BERT),
    "camembert": ("camembert", BERT),
    "distilbert": ("distilbert", SMALL | {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "dropout": 0.0,
                                          "attention_dropout": 0.0, "seq_classif_dropout": 0.0}),
    "gpt2": ("gpt2", GPT2),
    "llama": ("llama", LLAMA),
    "llama, other heads, biases": ("llama", LLAMA | {"head_dim": 12, "attention_bias": True, "mlp_bias": True,
                                                     "num_key_value_heads": 1}),
    "llama 3": ("llama", LLAMA | {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", LLAMA | {"sliding_window": None}),
    "qwen2": ("qwen2", LLAMA),
}  # fmt: skip


def built(kind: str) -> Any:
    """A PyTorch model with weights drawn anew, biases and norms too."""
    name, about = KINDS[kind]
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(name, **about)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
    return model


def batch(side: str) -> dict[str, torch.Tensor]:
    """Rows of 9, 4 and 1 tokens."""
    rng = np.random.default_rng(0)
    ids, mask = np.full((3, 9), PAD), np.zeros((3, 9), dtype=np.int64)
    for i, n in enumerate((9, 4, 1)):
        place = slice(0, n) if side == "right" else slice(9 - n, 9)
        ids[i, place] = rng.integers(PAD + 1, WORDS, n)
        mask[i, place] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def test_every_kind_is_looked_at() -> None:
    assert {name for name, _ in KINDS.values()} == set(MODELS)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_pytorch(kind: str, side: str, few: bool) -> None:
    """`few`: only the embeddings of tokens that occur are learned, padding among them."""
    import tensorflow as tf
    from tunewell.backends.tensorflow.layers import Dropout
    from tunewell.backends.tensorflow.model import Classifier, inputs

    model, rows = built(kind), batch(side)
    used = np.unique(rows["input_ids"].numpy()) if few else None
    twin = Classifier.of(model, used)
    labels = torch.tensor([2, 0, 1])
    logits = model(**rows).logits
    torch.nn.functional.cross_entropy(logits, labels).backward()
    with tf.GradientTape() as tape:
        found = twin.logits(*inputs({k: v.numpy() for k, v in rows.items()}), Dropout(None))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels.numpy(), found)
        loss = tf.reduce_mean(losses)
    assert np.abs(found.numpy() - logits.detach().numpy()).max() < 2e-5
    names = list(twin.variables)
    gradients = tape.gradient(
        loss, [twin.variables[n] for n in names], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    wanted = {n: p.grad for n, p in model.named_parameters()}
    assert set(wanted) == set(names)
    for name, gradient in zip(names, gradients, strict=True):
        mine = tf.convert_to_tensor(gradient).numpy()
        theirs = np.zeros(mine.shape, np.float32) if wanted[name] is None else wanted[name].numpy()
        if name == twin.words and few:
            assert len(mine) == len(used)
            theirs = theirs[used]
        if name in twin.unlearned:
            assert not theirs[twin.unlearned[name]].any()
            mine[twin.unlearned[name]] = 0
        assert np.abs(mine - theirs).max() < 1e-4 * max(1.0, np.abs(theirs).max()), name
    assert {n: v.shape for n, v in twin.values().items()} == {n: tuple(p.shape) for n, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "about", "said"),
    [
        ("gpt_neox", {}, "is a gpt_neox model"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attention of another kind than GPT-2's"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "of type dynamic"),
        ("mistral", {"sliding_window": 16}, "attention within a window"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "num_hidden_layers": 2},
         "attention within a window"),
        ("bert", {"is_decoder": True}, "is a decoder"),
        ("gpt2", {"activation_function": "mish"}, "has the activation mish"),
    ],
)  # fmt: skip
def test_what_would_be_another_model_is_refused(kind: str, about: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        refuse_model(AutoConfig.for_model(kind, **about))


def test_a_decoder_from_the_recipe_to_the_savedmodel(
    tiny_decoder: Path, make_reviews: Any, save_csv: Any, tmp_path: Path
) -> None:
    """Tuned in TensorFlow with distillation and averaging, read by PyTorch, exported."""
    general = tmp_path / "general.txt"
    general.write_text("\n".join(t for t, _ in make_reviews(64, seed=9)), encoding="utf-8")
    run = tunewell.run(
        framework="tensorflow", model=str(tiny_decoder), train=str(save_csv(tmp_path / "t.csv", make_reviews(120))),
        strategy=["distill", "average"], general_text=str(general), general_samples=32, probes=["none"], explain=0,
        num_train_epochs=2, learning_rate=1e-3, threads=1, progress=False, output_dir=str(tmp_path / "run"),
        echo=lambda line: None, raise_on_gate=False,
    )  # fmt: skip
    assert run.training.framework == "tensorflow"
    assert max(run.training.parity.values()) < 1e-4
    texts = [t for t, _ in make_reviews(9, seed=4)]
    twin = load_predictor(run.dir, framework="tensorflow")
    assert np.abs(twin.raw_scores(texts) - run.predictor.raw_scores(texts)).max() < 1e-4
    data = save_csv(tmp_path / "new.csv", [(t,) for t in texts], header=("text",))
    line = ["predict", str(run.dir), str(data), "-o", str(tmp_path / "out.csv"), "--framework", "tensorflow"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == run.predict(texts)
    done = export(run.dir, tmp_path / "saved", to="savedmodel")
    assert done.parity.largest < 1e-4
    assert done.parity.same == 1
