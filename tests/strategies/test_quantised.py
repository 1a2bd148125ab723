"""QLoRA: 4-bit weights under adapters, and the plain model that comes of them."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerCallback

import tunewell
from tunewell.errors import RecipeError, TunewellError
from tunewell.recipe_file import load_recipe

bnb = pytest.importorskip("bitsandbytes")


def test_nf4_is_that_of_the_paper():
    """A block's values are rounded to the nearest of the 16 quantiles of the paper's appendix E, times its maximum."""
    from tunewell.strategies.quantised import quantise, weights_of

    levels = torch.tensor([
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ])  # fmt: skip
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 48))
    before = model[0].weight.detach().clone()  # 48 blocks of 64
    quantise(model, ["0"], bf16=False)
    scale = before.abs().amax(1, keepdim=True)
    wanted = levels[(before.unsqueeze(-1) / scale.unsqueeze(-1) - levels).abs().argmin(-1)] * scale
    after = weights_of(model[0])
    assert (after - wanted).abs().max() < 0.02 * scale.max()  # the scales themselves are in 8 bits
    assert not model[0].weight.requires_grad


def test_the_merged_model_answers_as_the_tuned_one(small_job):
    inputs: dict = {}

    class Look(TrainerCallback):
        def on_train_end(self, args, state, control, model=None, **_):
            model.eval()
            ids = torch.arange(5, 15).reshape(2, 5) % model.config.vocab_size
            inputs["batch"] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with torch.no_grad():
                inputs["logits"] = model(**inputs["batch"]).logits
            inputs["kinds"] = {type(m).__module__ for m in model.modules()}

    keys = {"lora_rank": 2, "load_in_4bit": True, "max_steps": 6}
    tuned = small_job("lora", folder="bits", callbacks=(Look(),), **keys)
    assert "bitsandbytes.nn.modules" in inputs["kinds"]
    assert not [m for m in tuned.model.modules() if "peft" in type(m).__module__ or "bits" in type(m).__module__]
    assert {p.dtype for p in tuned.model.parameters()} == {torch.float32}
    with torch.no_grad():
        merged = tuned.model.eval()(**inputs["batch"]).logits
    torch.testing.assert_close(merged, inputs["logits"], rtol=1e-4, atol=1e-4)


def test_a_stopped_tuning_goes_on_to_the_same_weights(small_job, crash_at):
    keys = {"lora_rank": 2, "load_in_4bit": True, "rows": 32}
    whole = small_job("lora", folder="a", **keys)
    with pytest.raises(crash_at.error):
        small_job("lora", folder="b", callbacks=(crash_at(5),), **keys)
    resumed = small_job("lora", folder="b", **keys)
    assert whole.record.steps == resumed.record.steps
    assert all(torch.equal(whole.weights[k], resumed.weights[k]) for k in whole.weights)


def test_a_decoder_is_tuned_in_4_bits(tiny_decoder, tmp_path):
    import json

    rows = [{"prompt": f"say {w}", "completion": w} for w in (f"word{i}" for i in range(40))]
    path = tmp_path / "sft.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    run = tunewell.run(
        train=str(path), model=str(tiny_decoder), output_dir=str(tmp_path / "run"), strategy="lora", load_in_4bit=True,
        num_train_epochs=1, probes="none", max_new_tokens=4, echo=lambda line: None, progress=False,
    )  # fmt: skip
    assert len(run.predict(["say yes"])) == 1


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"strategy": "distill"}, "add `strategy: lora`"),
        ({"strategy": "lora", "lora_variant": "pissa"}, "not with pissa"),
    ],
)
def test_what_has_no_meaning_is_refused(keys, says):
    with pytest.raises(RecipeError, match=says):
        load_recipe(None, train="x.csv", load_in_4bit=True, **keys)


def test_a_missing_package_is_named(small_job, monkeypatch):
    monkeypatch.setattr("tunewell.extras.find_spec", lambda name: None)
    with pytest.raises(TunewellError, match="bitsandbytes is not installed") as caught:
        small_job("lora", load_in_4bit=True)
    assert "tunewell[quantize]" in str(caught.value)
