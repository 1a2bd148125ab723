"""Models that write answers: how a row is encoded, how likely an answer is, and what is written.

`CausalWriter` is a decoder with a chat template, `Seq2SeqWriter` an encoder-decoder. Both have the same methods,
so that the tasks need not ask which it is.

Shapes: T tokens of an input, A tokens of an answer.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from tunewell.errors import DataError
from tunewell.tasks.generation.loss import IGNORED, answer_loss, by_row_of, following
from tunewell.tasks.generation.rendering import end_ids, prompt_ids, render

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewell.data.write_rows import AnswerColumns
    from tunewell.recipe import Recipe

TOKENS_A_BATCH = 2048  # of a forward pass without gradients; the logits of large vocabularies are what fills memory


class Encoded(NamedTuple):
    """One row as tokens.

    Attributes:
        ids: (T,) input. labels: (T,) of a decoder, (A,) of an encoder-decoder; -100 where no loss is.
        cut: tokens left out because the row is too long. ended: an end token is learnt.
        answer_cut: those of them that carried loss. unlearnt: earlier answers that the template shows otherwise
            later on, so that they carry no loss.
    """

    ids: list[int]
    labels: list[int]
    cut: int
    ended: bool
    answer_cut: int = 0
    unlearnt: int = 0


@dataclass(frozen=True)
class Decoding:
    """How answers are written: greedily, by beam search with `num_beams` above 1, or drawn with `do_sample`.

    Drawing begins with `seed` at every call, so that the same texts in the same order get the same answers.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 42

    @classmethod
    def of(cls, recipe: Recipe) -> Decoding:
        """The recipe's settings."""
        return cls(**{f.name: getattr(recipe, f.name) for f in dataclasses.fields(cls)})

    def options(self) -> dict[str, Any]:
        """Arguments of `generate`, which override what a model brings in its own generation config."""
        out: dict[str, Any] = {"do_sample": self.do_sample, "num_beams": self.num_beams}
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        out |= drawn if self.do_sample else dict.fromkeys(drawn)
        out["no_repeat_ngram_size"] = self.no_repeat_ngram_size
        return out | ({"length_penalty": self.length_penalty} if self.num_beams > 1 else {})

    @contextlib.contextmanager
    def seeded(self, device: torch.device) -> Iterator[None]:
        """Draws inside begin with the seed; those outside go on as if nothing had been drawn."""
        import torch

        if not self.do_sample:
            yield
            return
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            yield


class Likelihood(NamedTuple):
    """(n,) each: nats of the answers, their tokens, tokens predicted right, bytes of their text."""

    nats: np.ndarray
    tokens: np.ndarray
    right: np.ndarray
    bytes: np.ndarray


@dataclass
class _Writer:
    """What both have; use one of the two below."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    decoding: Decoding = field(default_factory=Decoding)
    batch_size: int = 16
    bf16: bool = False
    source: str = ""
    text_column: str | None = None
    text_pair_column: str | None = None
    ask: Callable[[str], list[dict[str, Any]]] | None = None  # a source as a conversation; by default the text itself

    # what `tunewell predict` asks of everything that predicts
    usual: ClassVar[tuple[str, ...]] = ("messages", "prompt", "instruction", "source", "question", "text")
    usual_pair: ClassVar[tuple[str, ...]] = ("input",)  # of Alpaca

    def added(self, taken: Sequence[str]) -> AnswerColumns:
        """The columns that predictions add to rows with the columns `taken`."""
        from tunewell.data.write_rows import AnswerColumns

        return AnswerColumns(taken, {"prediction": str})

    def predict_batch(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One dict a text, with `prediction`."""
        return [{"prediction": text} for text in self.predict(texts, pairs)]

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str]:
        """What the model writes for each text (a prompt or source; or messages as JSON).

        Args:
            pairs: a second text for each, below the first (Alpaca's `input`).
        """
        if pairs is not None:
            texts = [f"{t}\n\n{p}" if p.strip() else t for t, p in zip(texts, pairs, strict=True)]
        written, _ = self.write([self.conversation(t) for t in texts])
        return written

    def conversation(self, text: str) -> list[dict[str, Any]]:
        """A text, or JSON messages, as the conversation that is to be answered."""
        if self.ask is not None:
            return self.ask(text)
        if text.lstrip().startswith("[{"):
            from tunewell.tasks.generation.conversations import messages_of

            with contextlib.suppress(ValueError, SyntaxError, DataError):
                value = json.loads(text) if text.lstrip()[2:3] != "'" else ast.literal_eval(text)
                messages = messages_of("messages", ["messages"], {"messages": value}, "messages")
                while messages and messages[-1]["role"] == "assistant":  # the answer that is asked for
                    messages.pop()
                if messages:
                    return messages
        return [{"role": "user", "content": text}]

    def batches(self, lengths: np.ndarray) -> Any:
        """Places of rows of like length, a batch at a time."""
        from tunewell.models.embed import like_length

        return like_length(lengths, self.batch_size, TOKENS_A_BATCH)

    def _padded(self, rows: Sequence[list[int]], fill: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask (B, T)."""
        import torch

        width = max(map(len, rows))
        ids = torch.full((len(rows), width), fill, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row, dtype=torch.long), 1
        return ids, mask

    @property
    def pair(self) -> bool:
        """Whether rows have a second text."""
        return self.text_pair_column is not None

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)

    def _answer_bytes(self, labels: Sequence[int]) -> int:
        kept = [i for i in labels if i != IGNORED]
        return len(self._text(kept).encode())

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def likelihood(self, rows: Sequence[Encoded]) -> Likelihood:
        """How likely the model finds the answers of encoded rows."""
        import torch

        from tunewell.tasks.generation.head import only_at

        out = np.zeros((3, len(rows)))
        training = self.model.training
        self.model.eval()
        lengths = np.array([len(r.ids) + (0 if self.shift else len(r.labels)) for r in rows], dtype=np.int64)
        device = self.model.device
        try:
            for index in self.batches(lengths):
                batch = {k: v.to(device) for k, v in self.collate([rows[i]._asdict() for i in index]).items()}
                labels = batch.pop("labels")
                wanted = following(labels) if self.shift else labels
                keep = wanted != IGNORED
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16),
                    only_at(self.model, keep),
                ):
                    logits = self.model(**batch).logits
                for j, values in enumerate(by_row_of(logits, wanted, keep)):
                    out[j, index] = values.cpu().numpy()
        finally:
            self.model.train(training)
        size = np.array([self._answer_bytes(r.labels) for r in rows], dtype=np.float64)
        return Likelihood(out[0], out[1], out[2], size)

    def write(
        self,
        prompts: Sequence[Sequence[dict[str, Any]]],
        progress: Callable[[int], None] | None = None,
        limits: Sequence[int] | None = None,
    ) -> tuple[list[str], np.ndarray]:
        """Answers to conversations, and (n,) whether each came to its own end before `max_new_tokens`.

        Args:
            limits: (n,) tokens of each answer at most, within `max_new_tokens`; so an answer does not depend on those
                that are written beside it.
        """
        import torch

        inputs = [self.prompt(p) for p in prompts]
        lengths = np.array([len(ids) for ids in inputs], dtype=np.int64)
        texts, ended = [""] * len(inputs), np.zeros(len(inputs), dtype=bool)
        training, device = self.model.training, self.model.device
        self.model.eval()
        ends = self.ends()
        with self.decoding.seeded(device), contextlib.ExitStack() as after:
            after.callback(self.model.train, training)
            for index in self.batches(lengths):
                ids, mask = self._padded([inputs[i] for i in index], self._pad, left=self.shift)
                most = self.decoding.max_new_tokens
                longest = most if limits is None else min(most, max(limits[i] for i in index))
                with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
                    out = self.model.generate(
                        input_ids=ids.to(device),
                        attention_mask=mask.to(device),
                        max_new_tokens=longest,
                        pad_token_id=self._pad,
                        eos_token_id=ends,
                        **self.decoding.options(),
                        **self.extra(),
                    )
                for i, row in zip(index, out.cpu().tolist(), strict=True):
                    written = (row[ids.shape[1] :] if self.shift else row[1:])[: limits[i] if limits else None]
                    stop = next((k for k, token in enumerate(written) if token in ends), None)
                    ended[i] = stop is not None
                    texts[i] = self._text(written[:stop])
                if progress is not None:
                    progress(len(index))
        return texts, ended

    # what the two do differently
    shift = True

    def ends(self) -> list[int]:
        raise NotImplementedError

    def extra(self) -> dict[str, Any]:
        return {}

    def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        raise NotImplementedError

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def loss(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        return answer_loss(outputs, labels, shift=self.shift)


class CausalWriter(_Writer):
    """A decoder: conversation in, next answer out, by its chat template."""

    shift = True

    def encode(self, messages: Sequence[dict[str, Any]]) -> Encoded:
        """A conversation that ends with an answer. Too long a one loses its beginning, never its last answer;
        an answer that is itself too long loses its end (and is not `ended`)."""
        rendered = render(self.tokenizer, messages)
        labels = [i if learnt else IGNORED for i, learnt in zip(rendered.ids, rendered.learnt, strict=True)]
        cut = max(0, len(rendered.ids) - self.max_length)
        if not cut:
            return Encoded(rendered.ids, labels, 0, rendered.ended, 0, rendered.unlearnt)
        answer = len(labels) - next((k for k, y in enumerate(reversed(labels)) if y == IGNORED), len(labels))
        first = min(cut, max(0, answer - 1))  # at least one token is read before the answer
        ids, labels = rendered.ids[first:], labels[first:]
        ended = rendered.ended and len(ids) <= self.max_length
        kept = labels[: self.max_length]
        lost = sum(rendered.learnt) - sum(y != IGNORED for y in kept)
        return Encoded(ids[: self.max_length], kept, cut, ended, lost, rendered.unlearnt)

    def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Tokens before the answer; the beginning is cut where they do not fit the window with an answer."""
        return prompt_ids(self.tokenizer, messages)[-max(1, self.max_length) :]

    def ends(self) -> list[int]:
        return end_ids(self.tokenizer)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, mask = self._padded([r["ids"] if "ids" in r else r["input_ids"] for r in rows], self._pad)
        labels, _ = self._padded([r["labels"] for r in rows], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@dataclass
class Seq2SeqWriter(_Writer):
    """An encoder-decoder: source in, target out.

    Attributes:
        prefix: put before every source (T5). target_lang: code of the language to write (mBART, NLLB).
    """

    max_target_length: int = 128
    prefix: str = ""
    target_lang: str | None = None
    shift = False
    usual: ClassVar[tuple[str, ...]] = ("source", "src", "prompt", "question", "text")

    def encode(self, messages: Sequence[dict[str, Any]]) -> Encoded:
        """Source and target; what is too long loses its end."""
        ids = self._ids(messages[-2]["content"])
        labels = list(self.tokenizer(text_target=messages[-1]["content"], verbose=False)["input_ids"])
        labels = labels[1:] if self._starts_with_start(labels) else labels
        eos = self.tokenizer.eos_token_id if self.tokenizer.eos_token_id is not None else self.tokenizer.sep_token_id
        cut = max(0, len(ids) - self.max_length) + max(0, len(labels) - self.max_target_length)
        lost = max(0, len(labels) - self.max_target_length)
        labels = labels[: self.max_target_length]
        return Encoded(self._shortened(ids), labels, cut, bool(labels) and labels[-1] == eos, lost)

    def _starts_with_start(self, labels: list[int]) -> bool:
        """Whether targets begin with the token that generation starts from anyway (BERT's [CLS])."""
        return bool(labels) and labels[0] == self.model.config.decoder_start_token_id

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(self.prefix + text, verbose=False)["input_ids"])

    def _shortened(self, ids: list[int]) -> list[int]:
        """At most `max_length` tokens, the last one (the end mark) kept."""
        return ids if len(ids) <= self.max_length else [*ids[: self.max_length - 1], ids[-1]]

    def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        return self._shortened(self._ids(messages[-1]["content"]))

    def ends(self) -> list[int]:
        found = (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)
        return [int(i) for i in dict.fromkeys(found) if i is not None]

    def extra(self) -> dict[str, Any]:
        if not self.target_lang:
            return {}
        number = self.tokenizer.convert_tokens_to_ids(self.target_lang)
        if number is None or number == self.tokenizer.unk_token_id:
            raise DataError(
                f"the tokenizer knows no language `{self.target_lang}`",
                where="target_lang",
                expected="a code of the model, such as de_DE (mBART) or deu_Latn (NLLB)",
            )
        return {"forced_bos_token_id": number}

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        ids, mask = self._padded([r["ids"] if "ids" in r else r["input_ids"] for r in rows], self._pad)
        labels, _ = self._padded([r["labels"] for r in rows], IGNORED)
        before = labels.masked_fill(labels == IGNORED, self._pad)
        start = torch.full((len(rows), 1), int(self.model.config.decoder_start_token_id), dtype=torch.long)
        decoder = torch.cat([start, before[:, :-1]], dim=1)
        return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder, "labels": labels}


Writer = CausalWriter | Seq2SeqWriter


def prefer_model(model: PreTrainedModel) -> bool:
    """Whether a model is an encoder-decoder."""
    return bool(getattr(model.config, "is_encoder_decoder", False))
