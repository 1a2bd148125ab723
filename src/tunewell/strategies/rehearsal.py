"""Rehearsal: a decoder goes on learning general text beside the task, so that it does not unlearn to speak.

rehearse_weight · mean over tokens of −log p(next token) on a batch of general text at every step (on short rows every
few steps, see train/general_batches.py). `rehearse_text: general` takes the packaged sentences or the file in
`general_text`, the replay of data that is like what the model was trained on (Robins, 1995; Scialom et al., 2022, who
find 1 % enough). `rehearse_text: self` needs none: the base model writes the texts, drawn from its own distribution
(pseudo-rehearsal; Robins, 1995; LAMOL, Sun et al., 2020), each begun with the first words of a general text; what
repeats itself or is hardly longer than its beginning is left out.

It goes with packing: general text is a batch of its own and shares no row with the task's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.general_batches import GeneralBatches
    from tunewell.train.hooks import Tuning

WRITTEN = 512  # texts that the base model writes at most
BEGINNING = 4  # tokens of a general text that it goes on from
FRESH = 0.5  # share of different tokens below which a text repeats itself
LEAST = 8  # tokens that a text must go on for
ROWS = 32


class Rehearsal:
    name = "rehearse"
    title = "Rehearsal of general text, given or written by the base model, beside the task"
    paper = "Robins, 1995, Catastrophic forgetting, rehearsal and pseudorehearsal; Sun et al., 2020, LAMOL"
    more_rows = True  # general text is learned, whatever words it has

    def __init__(self, options: dict[str, Any]) -> None:
        self.weight, self.text = float(options["rehearse_weight"]), options["rehearse_text"]
        self.source, self.samples = options["general_text"], options["general_samples"]

    def prepare(self, tuning: Tuning) -> None:
        from tunewell.models.embed import pad
        from tunewell.train.general_batches import plan_batches
        from tunewell.train.monitor import is_decoder

        if not is_decoder(tuning.model):
            raise RecipeError(
                "`strategy: rehearse` is for decoders: an encoder under a head cannot learn general text",
                where="strategy",
                expected="a decoder that is tuned to write, or another strategy such as distill",
            )
        if not self.weight:
            return
        written = write(tuning, self.source, self.samples) if self.text == "self" else None
        plan: GeneralBatches = plan_batches(tuning, self.source, self.samples, texts=written)
        self.every = plan.every
        whose = "general texts" if written is None else "texts of the base model's own"
        tuning.echo(f"rehearse: {len(plan.texts):,} {whose}, {plan.pace}")
        self.batches = [pad(tuning.tokenizer, plan.encoded, batch) for batch in plan.batches]

    def extra_loss(self, model: Any, step: int) -> torch.Tensor | None:
        if not self.weight or step % self.every:
            return None
        batch = self.batches[step // self.every % len(self.batches)]
        batch = {k: v.to(model.device) for k, v in batch.items() if k != "token_type_ids"}
        return self.weight * self.every * surprise(model(**batch).logits, batch)


def surprise(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean of −log p in nats over the tokens (B, T) of a padded batch that follow another, for logits (B, T, V)."""
    import torch.nn.functional as F

    wanted, there = batch["input_ids"][:, 1:], batch["attention_mask"][:, 1:].bool()
    return F.cross_entropy(logits[:, :-1][there].float(), wanted[there])


def write(tuning: Tuning, source: str | None, samples: int) -> list[str]:
    """Texts that the base model writes itself; kept in the tuning's cache, so that a resumed run has the same.

    Raises:
        RecipeError: too few of them are worth anything.
    """
    import json

    import torch

    from tunewell.data.general import general_texts
    from tunewell.results import write_whole
    from tunewell.seal import broken, seal

    path = tuning.cache / "rehearsal.json"
    if path.is_file():
        if (why := broken(path)) is None:
            return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))]
        tuning.echo(f"rehearse: what was kept of an earlier start is written again: {why}")
    from tunewell.train.general_batches import LONGEST

    model: Any = tuning.model
    tokenizer: Any = tuning.tokenizer
    begun = [tokenizer(text)["input_ids"][:BEGINNING] for text in general_texts(source, samples, seed=tuning.seed)]
    begun = [ids for ids in begun if len(ids) == BEGINNING][:WRITTEN]
    tuning.echo(f"rehearse: the base model writes {len(begun):,} texts")
    kept: list[str] = []
    training = model.training
    model.eval()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(tuning.seed)
            for start in range(0, len(begun), ROWS):
                ids = torch.tensor(begun[start : start + ROWS], device=model.device)
                out = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST - BEGINNING,
                    do_sample=True, temperature=1.0, top_p=1.0, top_k=0, pad_token_id=pad,
                )  # fmt: skip
                for row in out.tolist():
                    tokens = [t for t in row if t not in (pad, tokenizer.eos_token_id)]
                    if worth(tokens):
                        kept.append(str(tokenizer.decode(tokens, skip_special_tokens=True)).strip())
    finally:
        model.train(training)
    kept = [text for text in dict.fromkeys(kept) if text]
    if len(kept) < 16:
        raise RecipeError(
            f"of {len(begun):,} texts that the base model wrote only {len(kept)} do not repeat themselves",
            where="rehearse_text",
            expected="a base model that can write",
            remedy="rehearse_text: general",
        )
    tuning.echo(f"rehearse: {len(kept):,} kept, {len(begun) - len(kept):,} too short, repeating or twice")
    write_whole(path, json.dumps(kept, ensure_ascii=False))
    seal(path)
    return kept


def worth(tokens: list[int]) -> bool:
    """Whether a text goes on for long enough and does not repeat itself.

    >>> worth(list(range(20))), worth([1, 2] * 10), worth([1, 2, 3, 4, 5])
    (True, False, False)
    """
    return len(tokens) >= BEGINNING + LEAST and len(set(tokens)) >= FRESH * len(tokens)
