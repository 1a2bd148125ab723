"""Each strategy against its definition: closed forms, cases worked by hand, other packages."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tunewell.strategies import ema, ewc, freezing, l2sp, lines, lpft, mas, quadratic, recadam, sam, swa
from tunewell.strategies.layers import depths, head_depth, shared
from tunewell.strategies.llrd import LayerwiseRates


@pytest.fixture
def model(tiny_model):
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AutoModelForSequenceClassification.from_pretrained(tiny_model).eval()


@pytest.fixture
def texts(tiny_model, make_reviews):
    """Three batches of two texts each, as the base model takes them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [t for t, _ in make_reviews(6)]
    return [dict(tokenizer(rows[i : i + 2], return_tensors="pt", padding=True)) for i in (0, 2, 4)]


class Line(torch.nn.Module):
    """One weight vector; what a strategy that knows nothing of layers needs of a model."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(values))


# ---------------------------------------------------------------- freezing, rates, layers


def test_places_of_parameters(model):
    places = depths(model)
    assert places["bert.embeddings.word_embeddings.weight"] == 0
    assert places["bert.encoder.layer.1.output.dense.bias"] == 2
    assert places["bert.pooler.dense.weight"] == places["classifier.weight"] == 3


@pytest.mark.parametrize(
    ("mode", "tuned"),
    [("embeddings", {1, 2, 3}), ("last_1", {2, 3}), ("last_2", {1, 2, 3}), ("head_only", {3})],
)
def test_what_is_frozen(model, mode, tuned):
    freezing.Freezing({"freeze": mode}).prepare(SimpleNamespace(model=model, steps=10))
    assert {place for name, place in depths(model).items() if model.get_parameter(name).requires_grad} == tuned


@pytest.fixture
def tied(tiny_decoder):
    """A decoder of two layers whose head is its embeddings."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_decoder)


def tuned_names(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_a_head_without_weights_of_its_own_is_above_the_layers(tied):
    assert head_depth(tied) == 3
    assert max(depths(tied).values()) == 2
    assert {name for name, _ in shared(tied)} == set(depths(tied)), "the last layer is no head"


def test_rates_by_layer_of_a_model_without_a_head(tied):
    """As with one: half for the last of two layers, a quarter for the first, an eighth for the embeddings."""
    factors = LayerwiseRates({"llrd_decay": 0.5}).rate_factors(tied)
    assert factors["model.layers.1.mlp.up_proj.weight"] == 0.5
    assert factors["model.layers.0.mlp.up_proj.weight"] == 0.25
    assert factors["model.embed_tokens.weight"] == 0.125


@pytest.mark.parametrize(("mode", "untouched"), [("last_1", ("embed", "layers.0")), ("last_2", ("embed",))])
def test_last_layers_of_a_model_without_a_head(tied, mode, untouched):
    freezing.Freezing({"freeze": mode}).prepare(SimpleNamespace(model=tied, steps=10))
    frozen = set(depths(tied)) - tuned_names(tied)
    assert frozen == {name for name in depths(tied) if any(part in name for part in untouched)}


def test_gradual_thawing_begins_with_the_last_layer_where_there_is_no_head(tied):
    strategy = freezing.Freezing({"freeze": "gradual"})
    strategy.prepare(SimpleNamespace(model=tied, steps=16))
    strategy.begin_step(tied, 0)
    assert tuned_names(tied) == {name for name, place in depths(tied).items() if place == 2}


@pytest.mark.parametrize("mode", ["head_only", "bitfit"])
def test_what_would_leave_nothing_to_tune_is_refused(tied, mode):
    from tunewell.errors import RecipeError

    with pytest.raises(RecipeError, match="leaves nothing to tune"):
        freezing.Freezing({"freeze": mode}).prepare(SimpleNamespace(model=tied, steps=10))


def test_lora_on_a_model_without_a_head_tunes_adapters_alone(tied):
    from tunewell.strategies import lora

    options = {
        "lora_variant": "lora", "lora_rank": 2, "lora_alpha": 4.0, "lora_targets": ["all-linear"],
        "lora_rate_factor": 1.0, "load_in_4bit": False, "general_text": None, "general_samples": 8,
    }  # fmt: skip
    strategy = lora.LowRank(options)
    strategy.prepare(SimpleNamespace(model=tied, seed=1, bf16=False, echo=lambda line: None))
    assert all("lora_" in name for name in tuned_names(tied))
    assert tuned_names(tied)


def test_bitfit_tunes_biases_and_the_head(model):
    """Of BERT with 2 layers and hidden 32: the 2 · 9 biases of the layers, one of the embeddings' norm, the head."""
    freezing.Freezing({"freeze": "bitfit"}).prepare(SimpleNamespace(model=model, steps=10))
    tuned = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    encoder = {n: k for n, k in tuned.items() if n.startswith("bert.") and "pooler" not in n}
    assert all(n.endswith("bias") for n in encoder)
    assert sum(encoder.values()) == 32 + 2 * (4 * 32 + 64 + 32 + 2 * 32)
    assert set(tuned) - set(encoder) == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_more_layers_than_there_are(model):
    from tunewell.errors import RecipeError

    with pytest.raises(RecipeError, match="the model has 2 layers"):
        freezing.Freezing({"freeze": "last_3"}).prepare(SimpleNamespace(model=model, steps=10))


def test_frozen_layers_do_not_move(small_job):
    tuned = small_job("freeze", freeze="last_1")
    moved = {n for n in tuned.base if not torch.equal(tuned.base[n], tuned.weights[n])}
    assert moved
    assert not [n for n in moved if "embeddings" in n or "layer.0" in n]
    assert tuned.record.trainable_parameters < tuned.record.parameters


def test_rates_fall_towards_the_embeddings(small_job):
    from transformers import TrainerCallback

    seen = {}

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, optimizer=None, model=None, **_):
            names = {p: n for n, p in model.named_parameters()}
            seen.update({names[p]: g["initial_lr"] for g in optimizer.param_groups for p in g["params"]})

    small_job("llrd", llrd_decay=0.5, head_rate_factor=1.0, callbacks=(Look(),), max_steps=1)
    assert seen["classifier.weight"] == pytest.approx(1e-3)
    assert seen["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(0.5e-3)
    assert seen["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(0.25e-3)
    assert seen["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.125e-3)


# ---------------------------------------------------------------- encoders beside decoders


@pytest.fixture
def families(tiny_model, tiny_t5):
    """T5, which is its own base; BART, which has one; BERT beside BERT. Two layers in each half, heads of two kinds."""
    from transformers import (
        AutoModelForSeq2SeqLM,
        BartConfig,
        BartForConditionalGeneration,
        EncoderDecoderModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    small = BartConfig(
        vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    loose = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0)
    loose.tie_word_embeddings = False  # what the constructor is told, this version does not heed
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return {
            "t5": AutoModelForSeq2SeqLM.from_pretrained(tiny_t5),
            "t5 with a head": T5ForConditionalGeneration(loose),
            "bart": BartForConditionalGeneration(small),
            "bert2bert": EncoderDecoderModel.from_encoder_decoder_pretrained(tiny_model, tiny_model),
        }


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("t5", {"shared.weight": 0, "encoder.block.0.layer.0.SelfAttention.q.weight": 1,
                "encoder.final_layer_norm.weight": 2, "decoder.block.0.layer.1.EncDecAttention.q.weight": 3,
                "decoder.block.1.layer.2.DenseReluDense.wo.weight": 4, "decoder.final_layer_norm.weight": 4}),
        ("t5 with a head", {"shared.weight": 0, "decoder.block.1.layer.2.DenseReluDense.wo.weight": 4,
                            "lm_head.weight": 5}),
        ("bart", {"model.shared.weight": 0, "model.decoder.embed_positions.weight": 0,
                  "model.encoder.layers.1.fc1.weight": 2, "model.decoder.layers.0.encoder_attn.q_proj.weight": 3,
                  "model.decoder.layers.1.fc1.weight": 4}),
        ("bert2bert", {"encoder.embeddings.word_embeddings.weight": 0, "encoder.encoder.layer.1.output.dense.weight": 2,
                       "decoder.bert.embeddings.word_embeddings.weight": 0,
                       "decoder.bert.encoder.layer.0.output.dense.weight": 3,
                       "decoder.cls.predictions.transform.dense.weight": 5}),
    ],
)  # fmt: skip
def test_a_decoder_stands_above_its_encoder(families, family, expected):
    places = depths(families[family])
    assert {name: places[name] for name in expected} == expected
    assert head_depth(families[family]) == 5 and set(places.values()) <= set(range(6))


@pytest.mark.parametrize("family", ["t5", "t5 with a head", "bart", "bert2bert"])
def test_the_last_layers_of_an_encoder_decoder(families, family):
    model = families[family]
    freezing.Freezing({"freeze": "last_1"}).prepare(SimpleNamespace(model=model, steps=10))
    tuned, places = tuned_names(model), depths(model)
    assert tuned == {name for name, place in places.items() if place >= 4}
    assert not any(name.startswith(("encoder.", "model.encoder.", "shared")) for name in tuned)


def test_rates_by_layer_of_an_encoder_decoder(families):
    factors = LayerwiseRates({"llrd_decay": 0.5}).rate_factors(families["t5"])
    assert factors["decoder.block.1.layer.2.DenseReluDense.wo.weight"] == 0.5
    assert factors["encoder.block.1.layer.1.DenseReluDense.wo.weight"] == 0.125
    assert factors["shared.weight"] == 0.5**5


@pytest.mark.parametrize("family", ["t5", "t5 with a head", "bart", "bert2bert"])
def test_adapters_of_an_encoder_decoder(families, family):
    """Each linear layer of both halves has one, the head none; merged, the model is what it was before tuning."""
    from tunewell.strategies.lora import LowRank

    model = families[family].eval()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    options = {"lora_variant": "lora", "lora_rank": 2, "lora_alpha": 4, "general_text": None, "general_samples": 0,
               "load_in_4bit": False, "lora_targets": ["all-linear"], "lora_rate_factor": 1.0}  # fmt: skip
    strategy = LowRank(options)
    modules = strategy._modules(model)
    halves = [
        sum(".decoder." in f".{name}" for name in modules),
        sum(".decoder." not in f".{name}" for name in modules),
    ]
    assert halves[0] > halves[1] > 0, "the decoder attends to the encoder as well"
    assert not any("lm_head" in name or "cls" in name for name in modules)
    strategy.prepare(SimpleNamespace(model=model, seed=0, bf16=False, echo=lambda line: None))
    tuned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert sum("lora_A" in name for name in tuned) == len(modules)
    strategy.finish(model)
    assert set(before) == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


# ---------------------------------------------------------------- a linear probe first


def test_the_fitted_head_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((90, 5)).astype(np.float32), rng.integers(0, 3, 90)
    x += 0.8 * np.eye(5, dtype=np.float32)[y]
    reference = LogisticRegression(C=1.0, max_iter=1000, tol=1e-8).fit(x, y)
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    weight, bias = lpft.fit(torch.from_numpy(x), torch.from_numpy(y), loss, 3)
    centred = bias - bias.mean()  # a constant added to all biases changes nothing
    assert np.allclose(weight.numpy(), reference.coef_, atol=2e-3)
    assert np.allclose(centred.numpy(), reference.intercept_ - reference.intercept_.mean(), atol=2e-3)


def test_the_fitted_head_of_scores_is_ridge_regression():
    """Mean squared error plus ‖w‖² / 2n has the closed form (XᵀX + I / 2) w = Xᵀy on centred data."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 4)).astype(np.float32), rng.standard_normal(60).astype(np.float32)
    weight, _ = lpft.fit(torch.from_numpy(x), torch.from_numpy(y), lambda a, b: (a.squeeze(-1) - b) ** 2, 1)
    xc, yc = x - x.mean(0), y - y.mean()
    assert np.allclose(weight[0], np.linalg.solve(xc.T @ xc + np.eye(4) / 2, xc.T @ yc), atol=1e-4)


def test_tuning_starts_from_the_probe(small_job):
    """With a learning rate of next to nothing, the answers are those of scikit-learn on the model's features."""
    from sklearn.linear_model import LogisticRegression

    from tunewell.models.embed import logits

    tuned = small_job("lpft", learning_rate=1e-12, max_steps=1, folder="a")
    head, features = lpft.last_linear(tuned.model), []
    handle = head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0].detach()))
    one_by_one = np.concatenate([logits(tuned.model, tuned.tokenizer, [text], max_length=32) for text in tuned.texts])
    handle.remove()
    x = torch.cat(features).numpy()
    # two rows ±w/2 cost half of what one row w costs, so C = 1 for two outputs is C = 2 for their difference
    reference = LogisticRegression(C=2.0, max_iter=1000, tol=1e-8).fit(x, tuned.labels).decision_function(x)
    assert np.allclose(one_by_one[:, 1] - one_by_one[:, 0], reference, atol=2e-3)
    assert np.ptp(reference) > 0.1  # the probe says something


# ---------------------------------------------------------------- pulls to the base model


def test_the_pull_is_the_gradient_of_its_term(model):
    """Against autograd of weight / 2 · Σ importance · (θ − θ₀)²."""
    anchor = quadratic.anchors(model)
    assert not [n for n in anchor if n.startswith("classifier") or "pooler" in n]
    generator = torch.Generator().manual_seed(0)
    importance = {n: torch.rand(w.shape, generator=generator) for n, w in anchor.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    parameters = dict(model.named_parameters())
    term = 0.35 * sum((importance[n] * (parameters[n] - w) ** 2).sum() for n, w in anchor.items())
    wanted = dict(zip(anchor, torch.autograd.grad(term, [parameters[n] for n in anchor]), strict=True))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    quadratic.pull(model, anchor, 0.7, importance)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, 1 + wanted.get(name, torch.zeros(())), atol=1e-6), name


def test_l2sp_pulls_all_shared_weights_alike(model):
    strategy = l2sp.L2SP({"l2sp_weight": 0.5})
    strategy.prepare(SimpleNamespace(model=model))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.25)
    strategy.after_backward(model, 0)
    assert torch.allclose(model.bert.embeddings.word_embeddings.weight.grad, torch.tensor(0.125), atol=1e-6)
    assert torch.equal(model.classifier.weight.grad, torch.zeros_like(model.classifier.weight))


def test_fisher_is_the_squared_jacobian(model, texts):
    """E[Σₖ (∂eₖ/∂θ)² / ‖e‖²] by one backward pass a dimension, against the mean of 60 draws."""
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    parameter, batch = model.get_parameter(name), texts[0]
    exact = torch.zeros_like(parameter)
    e = quadratic.pooled(model, batch)
    for i in range(2):
        for k in range(e.shape[1]):
            (g,) = torch.autograd.grad(e[i, k], parameter, retain_graph=True)
            exact += g.square() / e[i].detach().square().sum() / 2
    found = sum(ewc.fisher(model, [batch], [name], seed=s)[name] for s in range(60)) / 60
    assert found.sum() == pytest.approx(float(exact.sum()), rel=0.15)
    assert torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1] > 0.85


def test_fisher_is_the_curvature_of_distillation(model, texts):
    """Of the last norm's bias β: e moves by δ as β does, so F = E[1 / ‖e‖²] and ‖e − e₀‖² / ‖e₀‖² = δᵀ F δ exactly."""
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    with torch.no_grad():
        size = torch.cat([quadratic.pooled(model, b) for b in texts]).square().sum(1)
    found = sum(ewc.fisher(model, texts, [name], seed=s)[name] for s in range(20)) / 20
    assert float(found.mean()) == pytest.approx(float((1 / size).mean()), rel=0.15)


def test_sensitivity_by_hand(model, texts):
    """Of the last norm's bias β: e = mean of tokens, so ∂‖e‖² / ∂βₖ = 2 eₖ whatever lies below."""
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    single = [{k: v[i : i + 1] for k, v in b.items()} for b in texts for i in range(2)]
    found = mas.sensitivity(model, single, [name])[name]
    with torch.no_grad():
        e = torch.cat([quadratic.pooled(model, b) for b in single])
    assert torch.allclose(found, (2 * e.abs() / e.square().sum(1, keepdim=True)).mean(0), atol=1e-6)


def test_recadam_by_hand():
    """η = 0.1, γ = 2, λ = σ(0) = 0.5, AdamW went from 1 to 0.8, base 0.4: 1 + 0.5 · (−0.2) − 0.1 · 0.5 · 2 · 0.6."""
    strategy = recadam.RecallAndLearn({"recadam_pull": 2.0, "recadam_k": 3.0, "recadam_t0": 0.1})
    strategy.t0, strategy.anchor = 1.0, {"w": torch.tensor([0.4])}
    line = Line(1.0)
    strategy.before_step(line, 0)
    line.w.data.fill_(0.8)
    strategy.after_step(line, 0, 0.1)
    assert line.w.item() == pytest.approx(1 - 0.1 - 0.06)
    assert recadam.annealed(10, 0.5, 12) == pytest.approx(1 / (1 + np.e))
    strategy.pull = 1e9  # a pull that would throw the weight beyond the base brings it there
    strategy.before_step(line, 0)
    strategy.after_step(line, 0, 0.1)
    assert line.w.item() == pytest.approx(0.4)


# ---------------------------------------------------------------- averages and sharpness


def test_moving_average_by_hand():
    """Weights 0, 4, 8 at decays 2/11 → d(1) = 3/12, d(2) = 4/13: 0, then 0.25 · 0 + 0.75 · 4 = 3, then 6.4615."""
    strategy, line = ema.MovingAverage({"ema_decay": 0.9}), Line(0.0)
    for step, value in enumerate((0.0, 4.0, 8.0)):
        line.w.data.fill_(value)
        strategy.after_step(line, step, 0.1)
    assert strategy.average["w"].item() == pytest.approx(4 / 13 * 3 + 9 / 13 * 8)
    own = line.w.data_ptr()
    with strategy.validating(line):
        assert line.w.item() == pytest.approx(4 / 13 * 3 + 9 / 13 * 8)
    assert line.w.data_ptr() == own
    assert line.w.item() == 8.0
    strategy.finish(line)
    assert line.w.item() == pytest.approx(4 / 13 * 3 + 9 / 13 * 8)


def test_the_mean_along_the_last_part():
    strategy, line = swa.StochasticWeightAveraging({"swa_start": 0.5}), Line(0.0)
    strategy.prepare(SimpleNamespace(steps=6))
    for step in range(6):
        line.w.data.fill_(float(step * step))
        strategy.after_step(line, step, 0.1)
    assert strategy.mean["w"].item() == pytest.approx((9 + 16 + 25) / 3)
    again = swa.StochasticWeightAveraging({"swa_start": 0.5})
    again.load_state(strategy.state())
    assert (again.count, again.mean["w"].item()) == (3, strategy.mean["w"].item())


def test_validation_scores_the_average(small_job):
    plain, averaged = small_job(folder="a"), small_job("ema", ema_decay=0.9, folder="b")
    assert plain.scores != averaged.scores
    from tunewell.models.embed import logits

    last = float(logits(averaged.model, averaged.tokenizer, averaged.texts[:8], max_length=32).std())
    assert last == pytest.approx(averaged.record.best_score, abs=1e-6)


def test_the_point_that_sam_climbs_to():
    line = Line(1.0, 2.0)
    line.w.grad = torch.tensor([3.0, 4.0])
    back = sam.SharpnessAware({"sam_rho": 0.5}).perturb(line)
    assert line.w.tolist() == pytest.approx([1 + 0.3, 2 + 0.4])
    assert back is not None
    back()
    assert line.w.tolist() == [1.0, 2.0]
    line.w.grad = torch.zeros(2)
    assert sam.SharpnessAware({"sam_rho": 0.5}).perturb(line) is None


def test_sam_takes_the_gradient_there():
    """Loss w⁴ / 4 at w = 1, ρ = 0.1: the optimiser sees (1.1)³, and gradients of earlier batches stay."""
    from tunewell.train.strategy_calls import climb

    line, trainer = Line(1.0), SimpleNamespace(_climbed=False)
    line.w.grad = torch.tensor([10.0])

    def backward() -> torch.Tensor:
        loss = (line.w**4 / 4).sum()
        loss.backward()
        return loss.detach()

    loss = climb(trainer, line, [sam.SharpnessAware({"sam_rho": 0.1}).perturb], backward)
    assert loss.item() == pytest.approx(0.25)
    assert line.w.grad.item() == pytest.approx(10 + 1.1**3)
    assert line.w.item() == 1.0
    assert not trainer._climbed


# ---------------------------------------------------------------- after tuning


def test_lines_by_hand():
    """Three layers, α = 0.2: the first keeps 0.2 of its change, the second 0.6, the last all; the pooler all."""
    names = ["embeddings.w", "encoder.layer.0.w", "encoder.layer.1.w", "encoder.layer.2.w", "pooler.w"]
    base = {n: torch.tensor([1.0]) for n in names}
    tuned = {n: torch.tensor([2.0]) for n in names}
    found = [lines.scaled(base, tuned, 0.2)[n].item() for n in names]
    assert found == pytest.approx([1.2, 1.2, 1.6, 2.0, 2.0])


@pytest.mark.parametrize("variant", ["lora", "dora", "rslora", "pissa", "olora", "corda", "eva", "oft", "osf"])
def test_merged_adapters_answer_as_unmerged(small_job, variant):
    from transformers import TrainerCallback

    from tunewell.models.embed import logits

    seen = {}

    class Look(TrainerCallback):
        def on_train_end(self, args, state, control, model=None, **_):
            seen["names"] = [
                n
                for n, p in model.named_parameters()
                if p.requires_grad and any(f".{kind}_" in n for kind in ("lora", "oft", "osf"))
            ]
            seen["logits"] = logits(model, seen["tokenizer"], seen["texts"], max_length=32)

    first = small_job(folder="plain", max_steps=1)
    seen |= {"tokenizer": first.tokenizer, "texts": first.texts}
    tuned = small_job("lora", lora_variant=variant, lora_rank=2, folder=variant, callbacks=(Look(),), max_steps=6)
    merged = logits(tuned.model, tuned.tokenizer, tuned.texts, max_length=32)
    assert abs(merged - seen["logits"]).max() < 1e-5
    matrices = {"oft": 1, "osf": 3}.get(variant, 2)  # a rotation, three parts of a decomposition, or two factors
    assert len(seen["names"]) >= matrices * 6 * 2  # for each of six layers in both blocks
    assert not [n for n, _ in tuned.model.named_parameters() if "lora" in n or "oft" in n or "osf" in n]
    assert not [n for n, m in tuned.model.named_modules() if "peft" in type(m).__module__]


def test_adapters_change_weights_by_their_rank_only(small_job):
    tuned = small_job("lora", lora_rank=2, lora_targets=["query", "value"])
    name = "bert.encoder.layer.0.attention.self.{}.weight"
    change = {k: tuned.weights[name.format(k)] - tuned.base[name.format(k)] for k in ("query", "key", "value")}
    assert torch.equal(change["key"], torch.zeros_like(change["key"]))
    for k in ("query", "value"):
        singular = torch.linalg.svdvals(change[k].double())
        assert singular[1] > 1e-6
        assert singular[2] < 1e-4 * singular[0]


def test_osf_leaves_the_strongest_directions_nearly_alone(small_job):
    """Of the change of a weight, what lies in its strongest directions is small beside that of plain tuning."""
    keys = {"max_steps": 6, "learning_rate": 1e-3}
    name = "bert.encoder.layer.0.intermediate.dense.weight"

    def share(tuned) -> float:
        base, change = tuned.base[name].double(), (tuned.weights[name] - tuned.base[name]).double()
        u, _, v = torch.linalg.svd(base, full_matrices=False)
        strong = u[:, :-4].T @ change @ v[:-4].T
        return float(strong.norm() / change.norm())

    osf = small_job("lora", lora_variant="osf", lora_rank=4, folder="osf", **keys)
    plain = small_job(folder="plain", **keys)
    assert share(plain) > 0.5
    assert share(osf) < 0.2 * share(plain)


def test_osf_needs_directions_to_keep(small_job):
    from tunewell.errors import RecipeError

    with pytest.raises(RecipeError, match="leaves none of the") as caught:
        small_job("lora", lora_variant="osf", lora_rank=4096)
    assert "below" in str(caught.value)


def test_an_adapter_for_a_layer_that_is_not_there(small_job):
    from tunewell.errors import RecipeError

    with pytest.raises(RecipeError, match="`lora_targets: q_proj` names no linear layer") as caught:
        small_job("lora", lora_targets=["q_proj"])
    assert "query" in str(caught.value)
