"""The model as explanations see it: a score of a target, of texts with words left out, and its gradients.

The score of a target is its log-odds log(p / (1 − p)), which, unlike a probability, does not level off where
the model is sure and is linear in the logits of a two-class head; for regression it is the predicted value.

Shapes: n texts, W words, B rows of a batch, T tokens, H hidden size, C outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tunewell.explain.segment import Item
from tunewell.models.embed import like_length

if TYPE_CHECKING:
    import torch

    from tunewell.tasks import TaskSpec

ROWS, TOKENS = 64, 2048  # of a batch at the most


class Row(NamedTuple):
    """What is left of a text: ids and types (t,), and (t,) which of its tokens they are."""

    ids: np.ndarray
    types: np.ndarray | None
    kept: np.ndarray


class Scorer:
    """A loaded model with what explanations ask of it. Models of answers have scorers of their own (`answers/`).

    Args:
        model: a Transformers model with a classification or regression head. tokenizer: its own.
        spec: the task; decides what the score of an output is.
        rows, tokens: rows and padded tokens a batch at the most; scores do not depend on them.
    """

    def __init__(self, model: Any, tokenizer: Any, spec: TaskSpec, *, rows: int = ROWS, tokens: int = TOKENS) -> None:
        self.model, self.tokenizer, self.spec, self.rows, self.tokens = model, tokenizer, spec, rows, tokens
        self.length_of: Callable[[int], int] | None = None  # see `padded`
        self.forwards = 0  # rows that went through the model, for estimates of time

    # ------------------------------------------------------------ scores of outputs

    @property
    def width(self) -> int:
        """How many outputs (C) there are."""
        return int(self.model.config.num_labels)

    @property
    def by_size(self) -> bool:
        """Whether words count by the size of their score, whatever its sign, as for the value of a regression."""
        return self.spec.regression

    @property
    def unit(self) -> str:
        """What faithfulness is measured in; see `probability`."""
        return "label" if self.spec.regression else "probability"

    def outputs(self, batch: dict[str, torch.Tensor], rows: Sequence[Row]) -> torch.Tensor:
        """Outputs (B, C) of a batch made from rows."""
        return self.model(**batch).logits.float()

    @property
    def layer(self) -> Any:
        """Where words become embeddings."""
        return self.model.get_input_embeddings()

    def fed(self, layer: Any, embeddings: torch.Tensor) -> contextlib.AbstractContextManager[None]:
        """A context in which the model reads embeddings (B, T, H) in place of its words'."""
        return replaced(layer, embeddings)

    def log_odds(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Scores (B,) of the targets (B,) given logits (B, C): log-odds, or the value itself."""
        import torch

        chosen = logits.gather(1, targets[:, None]).squeeze(1)
        if self.spec.regression or self.spec.multi_label or logits.shape[1] == 1:
            return chosen
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, targets[:, None], False)
        return chosen - logits.masked_fill(~others, -torch.inf).logsumexp(dim=1)

    def score(self, logits: np.ndarray, target: int) -> np.ndarray:
        """As `log_odds` for arrays: logits (..., C) to scores (...)."""
        from scipy.special import logsumexp

        logits = np.asarray(logits, dtype=np.float64)
        if self.spec.regression or self.spec.multi_label or logits.shape[-1] == 1:
            return logits[..., target]
        return logits[..., target] - logsumexp(np.delete(logits, target, axis=-1), axis=-1)

    def probability(self, logits: np.ndarray, target: int) -> np.ndarray:
        """Probabilities (...) of a target given logits (..., C); for regression the values themselves."""
        from scipy.special import expit

        score = self.score(logits, target)
        return score if self.spec.regression else expit(score)

    # ------------------------------------------------------------ texts with words left out

    def without(self, asked: Sequence[tuple[Item, np.ndarray]]) -> list[np.ndarray]:
        """Logits (C,) of texts from which words were taken out.

        The tokens of the words are removed, as in ERASER: the rest moves together. Special tokens stay. A subset
        of a text is computed once.

        Args:
            asked: pairs of an item and (W,) bool, True for the words that stay.
        """
        todo: dict[tuple[int, bytes], tuple[Item, np.ndarray]] = {}
        for item, keep in asked:
            bits = np.packbits(keep).tobytes()
            if bits not in item.cache:
                todo.setdefault((id(item), bits), (item, keep))
        for (item, keep), row in zip(todo.values(), self.fresh(list(todo.values())), strict=True):
            item.cache[np.packbits(keep).tobytes()] = row
        return [item.cache[np.packbits(keep).tobytes()] for item, keep in asked]

    def fresh(self, asked: Sequence[tuple[Item, np.ndarray]]) -> np.ndarray:
        """As `without`, as (n, C), all of them computed."""
        import torch

        rows = [_subset(item, keep) for item, keep in asked]
        out = np.empty((len(rows), self.width), dtype=np.float64)
        lengths = np.fromiter((len(row.ids) for row in rows), dtype=np.int64, count=len(rows))
        with self.at_rest(), torch.inference_mode():
            for index in like_length(lengths, self.rows, self.tokens):
                mine = [rows[i] for i in index]
                out[index] = self.outputs(self.batch(mine), mine).cpu().numpy()
                self.forwards += len(index)
        return out

    def logits(self, items: Sequence[Item]) -> np.ndarray:
        """Logits (n, C) of whole texts."""
        return np.stack(self.without([(item, np.ones(len(item.words), dtype=bool)) for item in items]))

    def batch(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Rows of ids (and types) padded to (B, T), with their mask."""
        encoded: dict[str, Any] = {"input_ids": [row.ids.tolist() for row in rows]}
        encoded["attention_mask"] = [[1] * len(row.ids) for row in rows]
        if rows[0].types is not None:
            encoded["token_type_ids"] = [row.types.tolist() for row in rows if row.types is not None]
        more: dict[str, Any] = {}
        if self.length_of is not None:
            more = {"padding": "max_length", "max_length": self.length_of(max(len(row.ids) for row in rows))}
        padded = self.tokenizer.pad(encoded, return_tensors="pt", **more)
        return {name: values.to(self.model.device) for name, values in padded.items()}

    @contextlib.contextmanager
    def padded(self, length_of: Callable[[int], int]) -> Iterator[None]:
        """A context in which batches are padded to `length_of(tokens of the longest row)` tokens."""
        self.length_of = length_of
        try:
            yield
        finally:
            self.length_of = None

    # ------------------------------------------------------------ gradients

    def passes(
        self, items: Sequence[Item], targets: np.ndarray, jobs: Sequence[int], values: Callable[[int, Any], Any]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, float]]:
        """Forward and backward with word embeddings of one's own, batched over jobs of like length.

        Args:
            items: n texts. targets: (n,) outputs. jobs: for each pass, which text it is of.
            values: called with the number of the job and the text's embeddings (T, H); returns what to feed.

        Yields:
            For each job, in any order: its number, what was fed (T, H), the gradient of the score to it (T, H),
            and the score.
        """
        import torch

        lengths = np.fromiter((len(items[i].ids) for i in jobs), dtype=np.int64, count=len(jobs))
        layer = self.layer
        with self.at_rest():
            for index in like_length(lengths, self.rows, self.tokens):
                mine = [items[jobs[j]] for j in index]
                rows = [whole(item) for item in mine]
                batch = self.batch(rows)
                with torch.no_grad():
                    fed = layer(batch["input_ids"]).clone()
                    kept = batch["attention_mask"].bool()
                    for row, j in enumerate(index):
                        fed[row, kept[row]] = values(int(j), fed[row, kept[row]])
                fed.requires_grad_(True)
                with self.fed(layer, fed):
                    logits = self.outputs(batch, rows)
                wanted = torch.as_tensor(targets[[jobs[j] for j in index]], device=logits.device)
                scores = self.log_odds(logits, wanted)
                (gradient,) = torch.autograd.grad(scores.sum(), fed)
                self.forwards += 3 * len(index)
                for row, j in enumerate(index):
                    yield (
                        int(j),
                        fed[row, kept[row]].detach().cpu().numpy(),
                        gradient[row, kept[row]].cpu().numpy(),
                        float(scores[row].detach()),
                    )

    def along(
        self, items: Sequence[Item], targets: np.ndarray, jobs: Sequence[tuple[int, float]], nothing: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        """Slopes of the score along the straight way from texts without words to the texts.

        Args:
            items: n texts. targets: (n,) outputs. nothing: (H,) the embedding in place of a word at the start.
            jobs: which text, and the place on its way, 0 the start and 1 the text.

        Yields:
            For each job, in any order: its number, gradient · (text − start) of each token (T,) float64, which is 0
            for special tokens, and the score there.
        """
        import torch

        lengths = np.fromiter((len(items[i].ids) for i, _ in jobs), dtype=np.int64, count=len(jobs))
        layer = self.layer
        with self.at_rest():
            for index in like_length(lengths, self.rows, self.tokens):
                mine = [items[jobs[j][0]] for j in index]
                rows = [whole(item) for item in mine]
                batch = self.batch(rows)
                kept = batch["attention_mask"].bool()
                words = torch.zeros_like(kept)
                words[kept] = torch.as_tensor(np.concatenate([item.word_of >= 0 for item in mine])).to(kept.device)
                with torch.no_grad():
                    text = layer(batch["input_ids"])
                    way = (text - torch.as_tensor(nothing, dtype=text.dtype, device=text.device)) * words[..., None]
                    left = torch.as_tensor([1 - jobs[j][1] for j in index], dtype=text.dtype, device=text.device)
                    fed = text - left[:, None, None] * way
                fed.requires_grad_(True)
                with self.fed(layer, fed):
                    logits = self.outputs(batch, rows)
                wanted = torch.as_tensor(targets[[jobs[j][0] for j in index]], device=logits.device)
                scores = self.log_odds(logits, wanted)
                (gradient,) = torch.autograd.grad(scores.sum(), fed)
                self.forwards += 3 * len(index)
                slopes = (gradient * way).sum(dim=2, dtype=torch.float64).cpu().numpy()
                there = kept.cpu().numpy()
                for row, (j, score) in enumerate(zip(index, scores.detach().cpu().tolist(), strict=True)):
                    yield int(j), slopes[row, there[row]], score

    def embeddings(self, ids: np.ndarray) -> np.ndarray:
        """Word embeddings (T, H) of token ids (T,)."""
        import torch

        with torch.no_grad():
            layer = self.layer
            return layer(torch.as_tensor(ids, device=self.model.device)[None])[0].float().cpu().numpy()

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Evaluation mode and no gradients of weights; everything is as before afterwards, errors or not."""
        training = {module: module.training for module in self.model.modules()}
        wanting = [weights for weights in self.model.parameters() if weights.requires_grad]
        try:
            self.model.eval()
            for weights in wanting:
                weights.requires_grad_(False)
            yield
        finally:
            for module, was in training.items():
                module.training = was
            for weights in wanting:
                weights.requires_grad_(True)


@contextlib.contextmanager
def replaced(layer: Any, output: Any) -> Iterator[None]:
    """A layer that answers `output` whatever it is asked; itself again afterwards, errors or not."""
    handle = layer.register_forward_hook(lambda module, inputs, was: output)
    try:
        yield
    finally:
        handle.remove()


def whole(item: Item) -> Row:
    """A text as it is."""
    return Row(item.ids, item.types, np.arange(len(item.ids)))


def _subset(item: Item, keep: np.ndarray) -> Row:
    stays = np.flatnonzero(np.where(item.word_of >= 0, keep[np.maximum(item.word_of, 0)], True))
    return Row(item.ids[stays], item.types[stays] if item.types is not None else None, stays)
