"""Methods against weights that are known, sums that must come out, and promises that hold for all."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tunewell.errors import ModelError, RecipeError
from tunewell.explain.scorer import Row, Scorer, whole
from tunewell.explain.segment import Item
from tunewell.explain.tokens import METHODS, integrated_gradients, lime, method, rollout, shapley, smoothgrad
from tunewell.tasks import TaskSpec

TARGETS = np.array([1, 0, 1, 0])
LINEAR = ["gradient_x_input", "integrated_gradients", "smoothgrad", "occlusion", "shapley", "lime"]


@pytest.mark.parametrize("name", LINEAR)
def test_a_bag_of_words_gives_its_weights(name: str, bag: Scorer, items: list) -> None:
    options = {"ridge": 1e-7} if name == "lime" else {}
    found = method(name).attribute(bag, items, TARGETS, **options)
    for item, target, a in zip(items, TARGETS, found, strict=True):
        known = bag.model.known(item) * (1 if target == 1 else -1)
        assert a.scores == pytest.approx(known, abs=2e-3 if name == "lime" else 2e-4)


def test_integrated_gradients_of_a_line_take_the_first_panels_alone(bag: Scorer, items: list) -> None:
    assert [a.passes for a in integrated_gradients.attribute(bag, items, TARGETS)] == [19] * 4  # 3 × 7, ends shared


def test_a_panel_is_exact_to_the_eleventh_degree() -> None:
    """Gauss-Lobatto quadrature of n points integrates polynomials of degree 2n − 3 exactly."""
    points = np.array(integrated_gradients.places(0.25, 0.5))
    for degree in range(12):
        exact = (0.5 ** (degree + 1) - 0.25 ** (degree + 1)) / (degree + 1)
        assert 0.25 * integrated_gradients.WEIGHTS @ points**degree == pytest.approx(exact, rel=1e-12)


def test_integrated_gradients_add_up(scorer: Scorer, items: list) -> None:
    for item, target, a in zip(items, TARGETS, integrated_gradients.attribute(scorer, items, TARGETS), strict=True):
        start = item.ids.copy()
        start[item.word_of >= 0] = scorer.tokenizer.mask_token_id
        with torch.inference_mode():
            ends = [
                scorer.model(**scorer.batch([Row(ids, item.types, np.arange(len(ids)))])).logits.numpy()
                for ids in (item.ids, start)
            ]
        total = float(scorer.score(ends[0][0], target) - scorer.score(ends[1][0], target))
        assert a.total == pytest.approx(total, abs=1e-4)
        assert a.delta == pytest.approx(abs(a.scores.sum() - total), abs=1e-4)
        assert a.delta <= max(0.01 * abs(total), integrated_gradients.FLOOR) * 1.001


@pytest.mark.parametrize("baseline", integrated_gradients.BASELINES)
def test_integrated_gradients_are_the_integral(baseline: str, scorer: Scorer, items: list) -> None:
    """Against 64 Gauss-Legendre points over the whole way."""
    item = items[0]
    (a,) = integrated_gradients.attribute(scorer, [item], TARGETS[:1], baseline=baseline, tolerance=1e-4)
    x, w = np.polynomial.legendre.leggauss(64)
    start = integrated_gradients.baseline_embedding(scorer, baseline)
    way = np.where(item.word_of[:, None] >= 0, scorer.embeddings(item.ids) - start, 0.0)

    def fed(job: int, text: Any) -> Any:
        return text - (1 - (x[job] + 1) / 2) * torch.as_tensor(way, dtype=text.dtype)

    total = sum(w[j] / 2 * g for j, _, g, _ in scorer.passes([item], TARGETS[:1], [0] * 64, fed))
    assert a.scores == pytest.approx(item.to_words((total * way).sum(axis=1)), abs=1e-3)


def test_unknown_baseline(scorer: Scorer, items: list) -> None:
    with pytest.raises(RecipeError, match="no baseline `blur`"):
        integrated_gradients.attribute(scorer, items, TARGETS, baseline="blur")


def test_occlusion_is_the_score_lost(scorer: Scorer, make_items: Callable) -> None:
    whole, part = make_items(["bad seat", "seat"])
    (a,) = method("occlusion").attribute(scorer, [whole], np.array([0]))
    logits = scorer.logits([whole, part])
    assert a.scores[0] == pytest.approx(float(scorer.score(logits[0], 0) - scorer.score(logits[1], 0)), abs=1e-5)


# ---------------------------------------------------------------- Shapley values


def test_shapley_formula_is_the_mean_over_all_orders() -> None:
    values = np.random.default_rng(0).normal(size=2**4)  # a game of four players, worth anything
    means = np.zeros(4)
    for order in itertools.permutations(range(4)):
        have = 0
        for player in order:
            means[player] += (values[have | 1 << player] - values[have]) / 24
            have |= 1 << player
    found = shapley._exact(values, 4)
    assert found.scores == pytest.approx(means)
    assert found.delta == pytest.approx(0, abs=1e-12)


def test_shapley_by_hand() -> None:
    """Worth 1 only together, and word 1 worth 2 alone: (½, 2½)."""
    assert shapley._exact(np.array([0.0, 0.0, 2.0, 3.0]), 2).scores == pytest.approx([0.5, 2.5])


def test_sampled_shapley_values_surround_the_exact_ones(scorer: Scorer, make_items: Callable) -> None:
    (item,) = make_items(["the rude crew was great"])
    target = np.array([1])
    (exact,) = shapley.attribute(scorer, [item], target)
    (sampled,) = shapley.attribute(scorer, [item], target, exact=0, pairs=300)
    assert exact.low is None and sampled.low is not None and sampled.high is not None
    assert sampled.scores == pytest.approx(exact.scores, abs=0.1 * np.abs(exact.scores).max())
    slack = (sampled.high - sampled.low) / 2  # twice the interval: five words, seeded
    assert np.all((sampled.low - slack <= exact.scores) & (exact.scores <= sampled.high + slack))
    assert sampled.delta == pytest.approx(0, abs=1e-4)  # every order adds up by itself


# ---------------------------------------------------------------- others


def test_smoothgrad_without_noise_is_gradient_x_input(scorer: Scorer, items: list) -> None:
    plain = method("gradient_x_input").attribute(scorer, items, TARGETS)
    for a, b in zip(smoothgrad.attribute(scorer, items, TARGETS, noise=0.0, samples=2), plain, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_lime_fits_by_weighted_least_squares() -> None:
    there = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], dtype=np.float64)
    assert lime._fit(there, 3 + there @ [2.0, -1.0], 1e-9) == pytest.approx([2.0, -1.0], abs=1e-6)


def test_rollout_by_hand() -> None:
    first = np.array([[[0.5, 0.5], [0.0, 1.0]]])
    second = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    # (second + I)/2 @ (first + I)/2 = [[.5,.5],[.5,.5]] @ [[.75,.25],[0,1]]
    assert rollout.rolled([first, second])[0] == pytest.approx(np.array([[0.375, 0.625], [0.375, 0.625]]))


class Reading(torch.nn.Module):
    """One layer whose attention is written down, under a head that reads the first or last token or all of them."""

    def __init__(self, read: str, size: int = 50) -> None:
        super().__init__()
        self.read = read
        self.embedding = torch.nn.Embedding(size, 4)
        self.head = torch.nn.Linear(4, 2)
        self.config = SimpleNamespace(num_labels=2, model_type="reading", _attn_implementation="eager")

    device = torch.device("cpu")

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def forward(self, input_ids: Any, attention_mask: Any, output_attentions: bool, output_hidden_states: bool) -> Any:
        # a causal layer over three tokens: each row sums to 1, padding gets nothing
        rows = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.2, 0.5, 0.3]])
        n, length = input_ids.shape
        attentions = torch.zeros(n, 1, length, length)
        attentions[..., :3, :3] = rows
        embedded = self.embedding(input_ids)
        hidden = attentions[:, 0] @ embedded
        last = attention_mask.sum(dim=1) - 1
        mask = attention_mask[..., None].float()
        pooled = {
            "first": hidden[:, 0],
            "last": hidden[torch.arange(n), last],
            "mean": (hidden * mask).sum(dim=1) / mask.sum(dim=1),
        }[self.read]
        return SimpleNamespace(logits=self.head(pooled), attentions=(attentions,), hidden_states=(embedded, hidden))


# (A + I) / 2 has the rows (1, 0, 0), (.2, .8, 0) and (.1, .25, .65)
@pytest.mark.parametrize(
    ("read", "known"),
    [("first", [1.0, 0.0, 0.0]), ("last", [0.1, 0.25, 0.65]), ("mean", [1.3 / 3, 1.05 / 3, 0.65 / 3])],
)
def test_rollout_starts_where_the_head_reads(read: str, known: list[float]) -> None:
    def item(ids: list[int]) -> Item:
        words = tuple(map(str, ids))
        return Item(np.array(ids), None, np.arange(len(ids)), words, ((0, 1),) * len(ids), (0,) * len(ids))

    def pad(encoded: dict, return_tensors: str) -> dict:
        longest = max(map(len, encoded["input_ids"])) + 2  # padding even for one text
        return {k: torch.tensor([v + [0] * (longest - len(v)) for v in rows]) for k, rows in encoded.items()}

    torch.manual_seed(0)
    scorer = Scorer(Reading(read), SimpleNamespace(pad=pad), TaskSpec("text-classification", ("a", "b")))
    (found,) = rollout.attribute(scorer, [item([5, 6, 7])], np.array([0]))
    assert found.scores == pytest.approx(np.array(known), abs=1e-6)


def test_rollout_of_a_decoder_and_of_mean_pooling(tiny_predictor: Any, make_items: Callable) -> None:
    """Llama's head reads the last token, a pooled one all; neither is the first token's row."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from tunewell.models.pooled import pooled

    tokenizer = tiny_predictor.tokenizer
    two = [replace(item, types=None) for item in make_items(["the crew was great and the seat fine", "rude crew"])]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_labels=2, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    decoder = LlamaForSequenceClassification(config).eval()
    encoder = pooled(copy.deepcopy(tiny_predictor.model))
    torch.nn.init.normal_(encoder.sentence_head.weight)
    for model, last in ((decoder, True), (encoder, False)):
        scorer = Scorer(model, tokenizer, tiny_predictor.spec)
        for item, a in zip(two, rollout.attribute(scorer, two, np.array([1, 0])), strict=True):
            model.set_attn_implementation("eager")
            with torch.inference_mode():
                shown = model(**scorer.batch([whole(item)]), output_attentions=True).attentions
            flow = rollout.rolled([layer.mean(dim=1).numpy() for layer in shown])[0]
            row = flow[-1] if last else flow.mean(axis=0)
            assert a.scores == pytest.approx(item.to_words(row.astype(np.float64)), abs=1e-5)
            assert a.scores.max() > 0.01


def test_rollout_gives_attention_back(scorer: Scorer, items: list) -> None:
    before = scorer.model.config._attn_implementation
    found = rollout.attribute(scorer, items, TARGETS)
    assert scorer.model.config._attn_implementation == before
    assert all(0 < a.scores.sum() <= 1 + 1e-6 and a.scores.min() >= 0 for a in found)


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no method `occlusoin`; did you mean `occlusion`\?"):
        method("occlusoin")


# ---------------------------------------------------------------- promises of all


@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_depend_on_neighbours_batches_or_padding(
    name: str, tiny_predictor: Any, make_items: Callable, texts: list[str]
) -> None:
    spec, tokenizer, model = tiny_predictor.spec, tiny_predictor.tokenizer, tiny_predictor.model
    together = method(name).attribute(Scorer(model, tokenizer, spec), make_items(texts), TARGETS)
    small = Scorer(model, tokenizer, spec, rows=2, tokens=40)
    for i, text in enumerate(texts):
        (alone,) = method(name).attribute(small, make_items([text]), TARGETS[i : i + 1])
        assert alone.scores == pytest.approx(together[i].scores, abs=2e-4)


@pytest.mark.parametrize("name", [n for n in METHODS if n != "random"])
def test_nothing_stays_changed_after_an_error(
    name: str, scorer: Scorer, items: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scorer.model

    class StopError(Exception):
        pass

    def stop(*args: Any, **kwargs: Any) -> None:
        raise StopError

    kind = model.config._attn_implementation
    monkeypatch.setattr(model.classifier, "forward", stop)
    model.train()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    try:
        with pytest.raises(StopError):
            method(name).attribute(scorer, items, TARGETS)
        assert all(module.training for module in model.modules())
        hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
        assert not [h for h in hooks if h.__module__.startswith("tunewell")]  # Transformers has some of its own
        assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(list(model.parameters())) - 1)
        assert model.config._attn_implementation == kind
        assert not torch.overrides._get_current_function_mode_stack()
    finally:
        frozen.requires_grad_(True)
        model.eval()


def test_methods_say_what_they_are() -> None:
    for name in METHODS:
        module = method(name)
        assert module.title and module.unit and any(c.isdigit() for c in module.paper), name


def test_attnlrp_refuses_models_that_it_has_no_rules_for(bag: Scorer, items: list) -> None:
    with pytest.raises(ModelError, match="not written for bag models"):
        method("attnlrp").attribute(bag, items, TARGETS)
