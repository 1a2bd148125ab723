"""Models that cannot be tuned: refused with what is missing and what would have been right."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def run(here: Path, refused: Callable, make_reviews, save_csv) -> Callable:
    """A run on good data with the model that is named."""
    save_csv(here / "a.csv", make_reviews(60))

    def call(model: object, *args: object, **options):
        fast = ["--train", "a.csv", "--probes", "none", "--max_steps", "2", "--output_dir", "runs/x"]
        return refused("run", "--model", model, *fast, *args, **options)

    return call


def without_tokenizer(model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()


def without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def without_config(model: Path) -> None:
    (model / "config.json").unlink()


def cut_weights(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def garbage_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"garbage" * 1000)


def empty_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"")


def broken_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "bert", ')


def unknown_architecture(model: Path) -> None:
    change_config(model, model_type="berd")


def other_shapes(model: Path) -> None:
    change_config(model, hidden_size=64)


def broken_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0"')


def tokenizer_of_another_model(model: Path) -> None:
    file = model / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"] |= {f"extra{i}": 5000 + i for i in range(300)}
    file.write_text(json.dumps(tokenizer))


def code_of_its_own(model: Path) -> None:
    change_config(model, model_type="mine", auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"})
    (model / "code.py").write_text("raise SystemExit('the code of the model was run')")


def change_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


BROKEN: dict[Callable[[Path], None], tuple[str, ...]] = {
    without_tokenizer: ("model: has no tokenizer", "expected: tokenizer.json", "tokenizer.save_pretrained"),
    without_weights: ("model: has no weights", "expected: model.safetensors"),
    pickled: ("holds its weights as pickle", "expected: model.safetensors", "on a machine you trust"),
    without_config: ("not a model folder: config.json is missing",),
    cut_weights: ("model: cannot load its weights",),
    garbage_weights: ("model: cannot load its weights",),
    empty_weights: ("model: cannot load its weights",),
    broken_config: ("model: cannot load its",),
    unknown_architecture: ("model: cannot load its", "berd"),
    other_shapes: ("model: cannot load its weights",),
    broken_tokenizer: ("model: cannot load its tokenizer",),
    tokenizer_of_another_model: ("the tokenizer that belongs to the model",),
    code_of_its_own: ("model: cannot load its", "trust_remote_code"),
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_model_folder(damage: Callable[[Path], None], broken_model: Path, run: Callable) -> None:
    damage(broken_model)
    run("model", says=BROKEN[damage])


def test_no_such_folder(run: Callable) -> None:
    run("./models/none", says=("./models/none: no such model folder", "`tunewell models` lists what is at hand"))


def test_a_file(run: Callable) -> None:
    run("a.csv", says="a.csv: is a file, not a model")


def test_no_name(run: Callable) -> None:
    run("", says="model: no model is named")


def test_folder_above_a_model(broken_model: Path, run: Callable) -> None:
    (broken_model.parent / "finished").mkdir()
    broken_model.rename(broken_model.parent / "finished" / "model")
    run("finished", says=("not a model folder", "did you mean finished/model?"))


def test_encoder_decoder(here: Path, run: Callable, broken_model: Path) -> None:
    from transformers import T5Config, T5Model

    T5Model(T5Config(vocab_size=400, d_model=32, d_ff=32, d_kv=16, num_layers=1, num_heads=2)).save_pretrained(
        broken_model
    )
    run("model", says="is not an encoder")


def test_a_hub_id_without_network_is_answered_in_seconds(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused, as on a machine without a network."""
    import socket

    def refuse(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    started = time.monotonic()
    run("someone/some-model", says=("someone/some-model", "Hugging Face Hub", "`tunewell models`"))
    assert time.monotonic() - started < 30


def test_a_misspelt_asset_is_answered_with_the_nearest(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    run("splade-tinny", says="did you mean `splade-tiny`?")


def test_weights_that_are_not_numbers(broken_model: Path, run: Callable) -> None:
    """A model whose weights are NaN (a failed training) is refused before it is tuned."""
    import torch
    from safetensors.torch import load_file, save_file

    file = broken_model / "model.safetensors"
    weights = load_file(file)
    save_file({k: torch.full_like(v, torch.nan) for k, v in weights.items()}, file, metadata={"format": "pt"})
    run("model", says=("model", "not finite"))
