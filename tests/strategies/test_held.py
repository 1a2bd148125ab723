"""Strategies that hold what a model answers, each against its definition: projection, anchor, likelihood, rotation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from tunewell.errors import RecipeError
from tunewell.strategies import anchor, check_combination, gpm, likelihood


@pytest.fixture
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def decoder(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=12, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                         initializer_range=0.4, pad_token_id=0)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


# ---------------------------------------------------------------- gradient projection


def test_leading_directions_hold_their_share():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1, 0.0])
    gram = x.T @ x
    for threshold in (0.5, 0.9, 0.999):
        space = gpm.leading(gram, threshold)
        assert torch.allclose(space.T @ space, torch.eye(space.shape[1]), atol=1e-5)
        held = ((x @ space) ** 2).sum() / (x**2).sum()
        fewer = gpm.leading(gram, threshold)[:, :-1]
        assert held >= threshold - 1e-5 > ((x @ fewer) ** 2).sum() / (x**2).sum()


def test_a_step_is_projected_by_hand():
    """Input space (1, 0): of the change (2, 3) only (0, 3) is left; the bias' own direction is free."""
    layer = torch.nn.Linear(2, 1)
    model = torch.nn.Sequential(layer)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0]]))
        layer.bias.zero_()
    strategy = gpm.GradientProjection({"gpm_threshold": 0.9, "general_text": None, "general_samples": 16})
    strategy.spaces = {"0": torch.tensor([[1.0], [0.0], [0.0]])}
    strategy.before_step(model, 0)
    with torch.no_grad():
        layer.weight.add_(torch.tensor([[2.0, 3.0]]))
        layer.bias.add_(0.5)
    strategy.after_step(model, 0, 0.1)
    assert layer.weight.tolist() == [[1.0, 4.0]]
    assert layer.bias.tolist() == [0.5]


def test_layers_answer_general_text_as_before(small_job, general_file):
    """With all of the energy held, embeddings of the texts that it was gathered on do not move; others do."""
    from tunewell.data.general import general_texts
    from tunewell.models.embed import embed
    from tunewell.models.load import load_encoder

    tuned = small_job("gpm", gpm_threshold=0.9999)
    plain = small_job(folder="plain")
    base = load_encoder(str(tuned.model.name_or_path)).model
    general = general_texts(general_file, 32, seed=42)

    def moved(model, texts) -> float:
        a, b = (embed(m, tuned.tokenizer, texts, max_length=64) for m in (base, model))
        return float(np.linalg.norm(a - b, axis=1).mean() / np.linalg.norm(a, axis=1).mean())

    assert moved(tuned.model, general) < 0.2 * moved(plain.model, general)
    same = [n for n in tuned.base if "embeddings" in n or "LayerNorm" in n]
    assert all(torch.equal(tuned.base[n], tuned.weights[n]) for n in same)
    name = "bert.encoder.layer.1.output.dense.weight"
    change, space = tuned.weights[name] - tuned.base[name], tuned.strategies[0].spaces[name.removesuffix(".weight")]
    bias = tuned.weights[name.replace("weight", "bias")] - tuned.base[name.replace("weight", "bias")]
    whole = torch.cat([change, bias[:, None]], dim=1)
    assert float((whole @ space).norm()) < 1e-4 * max(float(whole.norm()), 1e-3) + 1e-5


# ---------------------------------------------------------------- anchor


def test_divergence_by_hand():
    """KL((1/2, 1/2) ‖ (1/4, 3/4)) at the first token, 0 at the second, the third is padding."""
    base = torch.tensor([[[0.5, 0.5], [0.2, 0.8], [0.5, 0.5]]]).log()
    now = torch.tensor([[[0.25, 0.75], [0.2, 0.8], [0.9, 0.1]]]).log()
    kl = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert float(anchor.divergence(base, now, torch.tensor([[1, 1, 0]]))) == pytest.approx(kl / 2, abs=1e-6)
    assert float(anchor.divergence(base, base, torch.tensor([[1, 1, 1]]))) == pytest.approx(0.0, abs=1e-7)


def test_a_decoder_is_held_to_its_own_answers(decoder):
    """At the base weights the term and its gradient are 0; a step away it is PyTorch's kl_div."""
    strategy = anchor.Anchor({"anchor_weight": 2.0})
    strategy.prepare(SimpleNamespace(model=decoder, bf16=False, echo=lambda line: None))
    batch = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    term = strategy.batch_loss(decoder, batch, decoder(**batch), 0)
    term.backward()
    assert float(term.detach()) == pytest.approx(0.0, abs=1e-6)
    assert max(float(p.grad.abs().max()) for p in decoder.parameters()) < 1e-6
    before = decoder(**batch).logits.log_softmax(-1).detach()
    with torch.no_grad():
        decoder.lm_head.weight.mul_(1.3)
        outputs = decoder(**batch)
        found = float(strategy.batch_loss(decoder, batch, outputs, 0))
        after, real = outputs.logits.log_softmax(-1), batch["attention_mask"].bool()
        wanted = torch.nn.functional.kl_div(after[real], before[real], log_target=True, reduction="batchmean")
    assert found == pytest.approx(2 * float(wanted), rel=1e-5)
    assert found > 0


def test_an_encoder_is_held_by_its_embeddings_of_the_tasks_texts(tiny_model, tokenizer, make_reviews):
    """At the base weights 0; a step away the mean of ‖e − e₀‖² / ‖e₀‖², by hand."""
    from transformers import AutoModelForSequenceClassification

    from tunewell.models.embed import embed

    texts = [t for t, _ in make_reviews(5)]
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ).train()
    strategy = anchor.Anchor({"anchor_weight": 3.0})
    strategy.prepare(SimpleNamespace(model=model, bf16=False, echo=lambda line: None))
    batch = dict(tokenizer(texts, return_tensors="pt", padding=True))
    assert strategy.batch_loss(model, batch, model(**batch), 0).item() == pytest.approx(0.0, abs=1e-10)
    before = embed(model, tokenizer, texts)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.mul_(1.5)
    found = strategy.batch_loss(model, batch, model(**batch), 0)
    after = embed(model, tokenizer, texts)
    wanted = (np.square(after - before).sum(1) / np.square(before).sum(1)).mean()
    assert found.item() == pytest.approx(3 * wanted, rel=1e-4)
    found.backward()
    assert float(model.bert.encoder.layer[0].output.dense.weight.grad.norm()) > 0
    strategy.finish(model)
    assert not model.base_model._forward_hooks


# ---------------------------------------------------------------- EWC with a likelihood


def test_fisher_of_next_tokens_is_the_expected_squared_score(decoder):
    """Against the definition: for every token and every answer y, p(y) (∂ log p(y) / ∂θ)², averaged over tokens."""
    name = "model.layers.0.mlp.down_proj.weight"
    parameter = decoder.get_parameter(name)
    batch = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.tensor([[1, 1, 1]])}
    logp = decoder(**batch).logits[0].log_softmax(-1)
    exact = torch.zeros_like(parameter)
    for t in range(3):
        for y in range(12):
            (g,) = torch.autograd.grad(logp[t, y], parameter, retain_graph=True)
            exact += logp[t, y].detach().exp() * g.square() / 3
    found = sum(likelihood.likelihood_fisher(decoder, [batch], [name], seed=s)[name] for s in range(400)) / 400
    assert float(found.sum()) == pytest.approx(float(exact.sum()), rel=0.15)
    assert torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1] > 0.9


def test_fisher_is_the_curvature_of_the_anchors_divergence(decoder):
    """KL(p₀ ‖ p) along one direction of the output layer's weights: ½ δᵀFδ to second order, F the full matrix."""
    batch = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.tensor([[1, 1, 1]])}
    base = decoder(**batch).logits.detach()
    weight, step = decoder.lm_head.weight, 1e-2
    exact = 0.0
    logp = decoder(**batch).logits[0].log_softmax(-1)
    for t in range(3):
        for y in range(12):
            (g,) = torch.autograd.grad(logp[t, y], weight, retain_graph=True)
            exact += float(logp[t, y].detach().exp() * g[3, 2] ** 2) / 3
    with torch.no_grad():
        weight[3, 2] += step
        kl = float(anchor.divergence(base, decoder(**batch).logits, batch["attention_mask"]))
    assert kl == pytest.approx(0.5 * exact * step**2, rel=0.05)


@pytest.fixture(scope="module")
def masked(tiny_model, tmp_path_factory):
    """The tiny encoder under a masked-language-model head."""
    import shutil

    from transformers import AutoTokenizer, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked") / "mlm"
    shutil.copytree(tiny_model, folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM.from_pretrained(tiny_model).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def test_an_encoder_with_a_head_is_held_by_its_own_likelihood(small_job, masked):
    """The importances that tuning used are those of the model under its masked head, at the words in use."""
    from transformers import AutoModelForMaskedLM

    from tunewell.strategies.quadratic import general_batches

    held = small_job("ewc", ewc_fisher="likelihood", model=masked, max_steps=1)
    found = held.strategies[0].importance
    model = AutoModelForMaskedLM.from_pretrained(masked)
    general = held.strategies[0].general
    batches = general_batches(SimpleNamespace(tokenizer=held.tokenizer, model=model, seed=42), general, 32)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    wanted = likelihood.likelihood_fisher(model, batches, list(found), seed=42, mask=held.tokenizer.mask_token_id)
    assert torch.allclose(found[name], wanted[name], rtol=1e-3, atol=1e-9)
    words = "bert.embeddings.word_embeddings.weight"
    assert found[words].shape[0] < wanted[words].shape[0]
    assert float(found[words].sum()) > 0


def test_a_likelihood_that_is_not_there(small_job):
    with pytest.raises(RecipeError, match="needs a language-model head, and .* brings none"):
        small_job("ewc", ewc_fisher="likelihood")


# ---------------------------------------------------------------- adapters


def test_rotations_keep_the_length_of_every_row(small_job):
    """OFT multiplies a weight by an orthogonal matrix, so ‖w‖ of each output is what it was, and angles too."""
    tuned = small_job("lora", lora_variant="oft", lora_rank=8)
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    before, after = tuned.base[name], tuned.weights[name]
    assert float((before - after).norm()) > 1e-3
    assert torch.allclose(before @ before.T, after @ after.T, atol=1e-4)


def test_a_block_that_does_not_fit(small_job):
    with pytest.raises(RecipeError, match="`lora_rank: 5` does not cut the 32 inputs"):
        small_job("lora", lora_variant="oft", lora_rank=5)


def test_corda_takes_the_directions_that_general_text_uses_least(small_job, general_file):
    """After a step its change has less effect on general inputs than plain LoRA's of the same size would have."""
    from tunewell.models.embed import encode, pad
    from tunewell.strategies.gpm import gram_matrices

    tuned = small_job("lora", lora_variant="corda", lora_rank=2)
    layer = "bert.encoder.layer.0.intermediate.dense"
    from tunewell.data.general import general_texts
    from tunewell.models.load import load_encoder

    encoder = load_encoder(str(tuned.model.name_or_path))
    encoded = encode(encoder.tokenizer, general_texts(general_file, 32, seed=42), None, 64)
    batch = pad(encoder.tokenizer, encoded, list(range(32)))
    gram = gram_matrices(encoder.model, [layer.removeprefix("bert.")], [batch])[layer.removeprefix("bert.")][:32, :32]
    change = tuned.weights[f"{layer}.weight"] - tuned.base[f"{layer}.weight"]
    effect = torch.trace(change @ gram @ change.T) / change.square().sum()
    assert float(effect) < float(torch.trace(gram)) / 32  # a change in any direction alike


def eva(small_job, rank: int, rows: int = 1000):
    """The strategy, what it looks at and the directions that it finds in the tests' small encoder."""
    from peft import LoraConfig

    from tunewell.recipe import Recipe
    from tunewell.strategies.lora import LowRank
    from tunewell.train.hooks import Tuning

    job = small_job(max_steps=1)
    train = Dataset.from_dict(dict(job.tokenizer(list(job.texts)[:rows], truncation=True, max_length=32)))
    model = job.model.eval()
    tuning = Tuning(model, job.tokenizer, 1, 1, 1.0, 42, False, cache=None, train=train)
    strategy = LowRank(Recipe(strategy="lora", lora_variant="eva", lora_rank=rank).model_dump())
    config = LoraConfig(r=rank, lora_alpha=16, target_modules=strategy._modules(model))
    return strategy, tuning, config


def test_eva_takes_the_directions_in_which_the_rows_vary_most(small_job):
    """Against the exact decomposition of what each layer is given, and the ranks against their order."""
    strategy, tuning, config = eva(small_job, rank=3)
    with torch.no_grad():  # one layer's inputs vary in one direction most of all, and need no more
        tuning.model.bert.encoder.layer[0].intermediate.dense.weight[0] *= 50
    found = strategy._directions(tuning, config)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in found}
    hooks = [
        tuning.model.get_submodule(name).register_forward_pre_hook(lambda _, x, n=name: seen[n].append(x[0][mask]))
        for name in found
    ]
    with torch.no_grad():
        for batch in strategy._inputs(tuning, 6):
            mask = batch["attention_mask"].bool()
            tuning.model.base_model(**batch)
    for hook in hooks:
        hook.remove()
    least, left = [], []
    for name, directions in found.items():
        inputs = torch.cat(seen[name]).double()
        _, values, exact = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False)
        inside = (directions.double() @ exact[: len(directions)].T).square().sum(1)
        assert inside.min() > 0.95, name
        shares = values.square() / values.square().sum()
        least.append(float(shares[len(directions) - 1]))
        left.append(float(shares[len(directions)]) if len(directions) < 6 else 0.0)
    assert sum(len(d) for d in found.values()) == 3 * len(strategy._modules(tuning.model))
    assert max(left) < min(least) + 0.02  # no direction was left out for one that explains less
    assert len(found["bert.encoder.layer.0.output.dense"]) == 1


def test_eva_on_narrow_layers(small_job):
    """The tests' encoder has 32 inputs a layer: of rank 20 none is given more than these, and rank 40 is refused."""
    strategy, tuning, config = eva(small_job, rank=20)
    found = strategy._directions(tuning, config)
    assert max(len(d) for d in found.values()) <= 32
    strategy, tuning, config = eva(small_job, rank=40)
    with pytest.raises(RecipeError, match="`lora_rank: 40` is more than the 32 inputs"):
        strategy._directions(tuning, config)


def test_eva_is_told_too_few_tokens(small_job):
    strategy, tuning, config = eva(small_job, rank=8, rows=1)
    with pytest.raises(RecipeError, match="a layer may be given 16 directions"):
        strategy._directions(tuning, config)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["gpm", "lora"], "`lora` freezes the base model's weights, which `gpm` works on"),
        (["freeze", "gpm", "anchor"], "`gpm` and `anchor` have nothing to keep"),
    ],
)
def test_combinations_without_sense(names, says):
    assert any(says in p for p in check_combination(names, "head_only"))
