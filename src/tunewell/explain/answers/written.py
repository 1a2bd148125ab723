"""Why it wrote this: which words of the source or prompt each word of a translation or an answer came from.

The score of an answer's word is its log-probability behind the answer so far, the sum over its tokens; that of the
whole answer is the mean over its tokens. The answer stays as it is while words of the source are taken out.

Shapes: W words of the source, U words of the answer, A tokens of the answer, B rows of a batch, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, ModelError
from tunewell.explain.answers.records import WrittenExplanation
from tunewell.explain.answers.scoring import AnswerScorer
from tunewell.explain.auto import choose
from tunewell.explain.faithfulness import measure
from tunewell.explain.scorer import Row
from tunewell.explain.segment import Item, joined, need_words, spans_of
from tunewell.tasks.generation.loss import IGNORED
from tunewell.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import torch

    from tunewell.tasks.generation.writers import Encoded, Writer

CANDIDATES = ("occlusion", "gradient_x_input")  # the first is tried whatever the budget: one pass a source word
UNIT = "log-probability of the answer's word, in nats"
SPEC = TaskSpec("text-generation", metric="")
ROWS, TOKENS = 16, 1024  # of a batch: the logits of large vocabularies are what fills memory


class WrittenScorer(AnswerScorer):
    """Log-probabilities of the words of one answer (U), and last of all that of a token of it, on average.

    Args:
        answer: (A,) its tokens. word_of: (A,) the word that each belongs to, −1 for an end mark.
    """

    def __init__(self, writer: Writer, answer: Sequence[int], word_of: Sequence[int]) -> None:
        super().__init__(writer.model, writer.tokenizer, SPEC, rows=ROWS, tokens=TOKENS)
        self.shift, self.answer, self.word_of = writer.shift, list(answer), np.asarray(word_of)

    @property
    def width(self) -> int:
        return int(self.word_of.max()) + 2

    def outputs(self, batch: dict[str, torch.Tensor], rows: Sequence[Row]) -> torch.Tensor:
        import torch

        device, n = batch["input_ids"].device, len(self.answer)
        answer = torch.as_tensor(self.answer, device=device)
        if self.shift:
            logits = self._behind(batch, n)
        else:
            first = torch.full((1,), int(self.model.config.decoder_start_token_id), device=device)
            before = torch.cat([first, answer[:-1]]).expand(len(rows), -1)
            logits = self.model(**batch, decoder_input_ids=before).logits
        sure = logits.float().log_softmax(dim=2).gather(2, answer.expand(len(rows), -1)[..., None]).squeeze(2)  # (B, A)
        kept = self.word_of >= 0
        words = torch.zeros((len(rows), self.width - 1), device=device)
        words = words.index_add(1, torch.as_tensor(self.word_of[kept], device=device), sure[:, torch.as_tensor(kept)])
        return torch.cat([words, sure.mean(dim=1, keepdim=True)], dim=1)

    def _behind(self, batch: dict[str, torch.Tensor], n: int) -> Any:
        """Logits (B, A, V) of a decoder at the tokens before the answer's: every row ends with the answer."""
        import torch

        from tunewell.tasks.generation.head import only_at

        mask = batch["attention_mask"].bool()
        place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        end = (place * mask).max(dim=1, keepdim=True).values  # the last token of each row
        keep = (place >= end - n) & (place < end)
        with only_at(self.model, keep):
            logits = self.model(**batch).logits
        return logits.reshape(len(mask), n, -1)

    @property
    def layer(self) -> Any:
        return (self.model if self.shift else self.model.get_encoder()).get_input_embeddings()

    @contextlib.contextmanager
    def fed(self, layer: Any, embeddings: torch.Tensor) -> Iterator[None]:
        """As of other models; where encoder and decoder share the layer, the encoder's call, the first, is meant."""
        called: list[None] = []

        def answer(module: Any, inputs: Any, was: Any) -> Any:
            called.append(None)
            return embeddings if len(called) == 1 else was

        handle = layer.register_forward_hook(answer)
        try:
            yield
        finally:
            handle.remove()


def explain_written(
    writer: Writer,
    text: str,
    *,
    method: str = "auto",
    target: str | None = None,
    budget: float = 20.0,
    seed: int = 42,
) -> WrittenExplanation:
    """Which words of a source or prompt each word of the answer came from.

    Args:
        text: a source, a prompt, or messages as JSON, of which the last one is looked at; the others stay.
        target: an answer to explain; by default what the model writes.

    Raises:
        DataError: no text, or no answer that has words. ModelError: a method that cannot be used here, or a
            tokenizer that does not know where its tokens stand.
    """
    from tunewell.explain import tokens

    if not text.strip():
        raise DataError("an empty text has no words to explain", where="text", expected="a text with words")
    if not writer.tokenizer.is_fast:
        raise ModelError(
            "its tokenizer cannot tell where tokens stand in the text",
            where=writer.source,
            expected="a fast tokenizer (tokenizer.json)",
        )
    asked = writer.conversation(text)
    need_words(writer.tokenizer, str(asked[-1]["content"]), where="text")
    if target is not None:
        need_words(writer.tokenizer, target, where="target")
    written = writer.write([asked])[0][0] if target is None else None
    said = written if target is None else target
    if not said or not said.strip():
        raise DataError(
            "there is no answer to explain" + ("; the model writes nothing" if target is None else ""),
            where="target",
            expected="an answer with words",
        )
    before = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in asked]
    encoded = writer.encode([*before, {"role": "assistant", "content": said}])
    answer = [token for token in encoded.labels if token != IGNORED]
    shown, spans, of_token = _answer_words(writer.tokenizer, answer)
    item = (_prompt if writer.shift else _source)(writer, asked, said, encoded)
    scorer = WrittenScorer(writer, answer, of_token)
    whole = np.array([scorer.width - 1])
    if method == "auto":
        method, tried, found, faith = choose(
            scorer, [item], whole, budget=budget, n_all=1, seed=seed, again=len(spans), candidates=CANDIDATES
        )
    else:
        scorer.refuse(method)
        found, tried = tokens.method(method).attribute(scorer, [item], whole, seed=seed), []
        faith = measure(scorer, [item], whole, [found[0].scores], seed=seed)
    each = tokens.method(method).attribute(scorer, [item] * len(spans), np.arange(len(spans)), seed=seed)
    sure = scorer.logits([item])[0]
    return WrittenExplanation(
        text=item.texts[0], words=item.words, spans=item.spans, answer=shown,
        answer_words=tuple(shown[a:b] for a, b in spans), answer_spans=tuple(spans),
        matrix=tuple(tuple(map(float, a.scores)) for a in each), scores=tuple(map(float, found[0].scores)),
        log_probabilities=tuple(map(float, sure[:-1])), score=float(sure[-1]), method=method, unit=UNIT,
        prediction=written, faithfulness=faith[0], cut=item.cut, earlier=len(asked) - 1, tried=tuple(tried),
    )  # fmt: skip


def _answer_words(tokenizer: Any, answer: Sequence[int]) -> tuple[str, list[tuple[int, int]], list[int]]:
    """The answer as text, its words' characters, and the word of each token (−1 for end marks)."""
    decoded = [str(tokenizer.decode(answer[:k], skip_special_tokens=True)) for k in range(len(answer) + 1)]
    text, special = decoded[-1], set(tokenizer.all_special_ids)
    offsets = []
    for k, token in enumerate(answer):
        start, stop = min(len(decoded[k]), len(text)), min(len(decoded[k + 1]), len(text))
        if stop <= start and token not in special:  # part of a character: with the next token
            start, stop = min(start, len(text) - 1), min(start + 1, len(text))
        offsets.append((start, max(start, stop)))
    real = [k for k, (a, b) in enumerate(offsets) if b > a]
    spans, of = joined(spans_of(text, [offsets[k][0] for k in real]), [offsets[k] for k in real])
    words = sorted({w for w in of if w >= 0})
    if not words:
        raise DataError("there is no answer to explain", where="target", expected="an answer with words")
    number = {w: k for k, w in enumerate(words)}
    of_token = [-1] * len(answer)
    for k, w in zip(real, of, strict=True):
        of_token[k] = number.get(w, -1)
    return text, [spans[w] for w in words], of_token


def _prompt(writer: Any, asked: Sequence[dict[str, Any]], said: str, encoded: Encoded) -> Item:
    """Prompt and answer of a decoder; words of the last message may go."""
    from tunewell.tasks.generation.rendering import rendered_text

    whole = rendered_text(writer.tokenizer, [*asked, {"role": "assistant", "content": said}])
    found: Any = writer.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    lost = encoded.cut if encoded.cut and found["input_ids"][: len(encoded.ids)] != encoded.ids else 0
    before = next(k for k, label in enumerate(encoded.labels) if label != IGNORED)
    offsets = found["offset_mapping"][lost : lost + before]
    if found["input_ids"][lost : lost + before] != encoded.ids[:before]:
        raise ModelError("its chat template does not show where the prompt's words stand", where=writer.source)
    text = str(asked[-1]["content"])
    limit = offsets[-1][1] if offsets else 0
    at = whole.rfind(text, 0, limit)
    if at < 0:
        text = text.strip()
        at = whole.rfind(text, 0, limit)
    if at < 0 or not text:
        raise ModelError("its chat template does not show the prompt as it is", where=writer.source)
    places = [(k, (a - at, b - at)) for k, (a, b) in enumerate(offsets) if b > a and at < b and a < at + len(text)]
    return _made(np.asarray(encoded.ids, dtype=np.int64), text, places)


def _source(writer: Any, asked: Sequence[dict[str, Any]], said: str, encoded: Encoded) -> Item:
    """Source of an encoder-decoder; a prefix stays."""
    text, prefix = str(asked[-1]["content"]), len(writer.prefix)
    found: Any = writer.tokenizer(writer.prefix + text, return_offsets_mapping=True, verbose=False)
    places = [
        (k, (max(0, a - prefix), b - prefix))
        for k, (a, b) in enumerate(found["offset_mapping"][: len(encoded.ids)])
        if b > a and b > prefix and found["input_ids"][k] == encoded.ids[k]
    ]
    return _made(np.asarray(encoded.ids, dtype=np.int64), text, places)


def _made(ids: np.ndarray, text: str, places: Sequence[tuple[int, tuple[int, int]]]) -> Item:
    spans = [(max(0, a), min(len(text), b)) for _, (a, b) in places]
    found, of_token = joined(spans_of(text, [a for a, _ in spans]), spans)
    seen = sorted({w for w in of_token if w >= 0})
    if not seen:
        raise DataError("no word of this text reaches the model", where="text", expected="letters or signs")
    number = {w: k for k, w in enumerate(seen)}
    word_of = np.full(len(ids), -1, dtype=np.int64)
    for (token, _), w in zip(places, of_token, strict=True):
        word_of[token] = number.get(w, -1)
    return Item(
        ids, None, word_of, tuple(text[slice(*found[w])] for w in seen), tuple(found[w] for w in seen),
        (0,) * len(seen), len(found) - len(seen), (text,),
    )  # fmt: skip
