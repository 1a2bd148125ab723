"""What an encoder-decoder knows, before and after: does it still write of general text what the base model wrote?

There is no general text with translations for every pair of languages, so the base model is its own reference: what
it writes, greedily, of general sentences is put before the tuned model token by token.

- `agreement`: the share of these tokens' places where both models find the same token likeliest (counted).
- `kl`: the forward divergence KL(base ‖ tuned) at these places, in nats a token (drift, counted only when named).

Both say how much has moved, not whether for better or worse. A file of pairs of your own measures an ability: bits per
byte of its targets given their sources, lower is better, retention is before / after.

Shapes: n sentences, A tokens of a target, K likeliest tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, RecipeError, nearest
from tunewell.retention.language import LanguageSuite
from tunewell.retention.measurement import items_hash
from tunewell.retention.probes.agreement import LIKELIEST, TITLES
from tunewell.retention.probes.speaker import Next, SpokenProbe

if TYPE_CHECKING:
    from tunewell.retention.suite import Half
    from tunewell.tasks.generation.writers import Seq2SeqWriter

KNOWN = ("agreement", "kl")
SENTENCES, TOKENS, LONGEST = 100, 48, 300  # of a half; of a target; characters of a sentence
PAIRS, LEAST_PAIRS = 200, 40
Write = Callable[[Sequence[str]], list[str]]  # what the base model makes of sources


def load_translating_suite(
    probes: Sequence[str] = ("auto",),
    probe_files: Sequence[str] = (),
    *,
    write: Write,
    columns: tuple[str, str] = ("source", "target"),
    source: str | None = None,
    half: Half = "report",
    seed: int = 42,
) -> LanguageSuite:
    """Make a suite for encoder-decoders.

    Args:
        probes: names out of agreement, kl; "auto" for both, "none" for none.
        probe_files: files of pairs, with the columns of the recipe, or `source` and `target`.
        write: the base model's own greedy translations of texts.
        columns: the recipe's columns of source and target.
        source: ISO 639-1 code of the language that the model reads, None where it is not known.

    Raises:
        RecipeError: an unknown probe, or one that needs general text in a language that is not packaged.
        DataError: a file that cannot be used.
    """
    from tunewell.retention.probes.similarity import halve

    names = list(dict.fromkeys(probes))
    for name in names:
        if name not in (*KNOWN, "auto", "none"):
            raise RecipeError(
                f"unknown probe `{name}` for an encoder-decoder",
                where="probes",
                expected=", ".join((*KNOWN, "auto", "none")),
                remedy=nearest(name, KNOWN),
            )
    if "none" in names and len(names) > 1:
        raise RecipeError(
            "`none` cannot be combined with other probes", where="probes", expected="none, or names of probes"
        )
    english = source in (None, "en")
    named = [n for n in names if n in KNOWN]
    if named and not english:
        raise RecipeError(
            f"`{named[0]}` reads English sentences, and the sources are `{source}`",
            where="probes",
            expected="sources in English",
            remedy="`probe_files` with pairs of your own",
        )
    chosen = [n for n in KNOWN if english] if "auto" in names else named
    made = [_drift(name, half, seed, write, counted=name == "agreement" or name in names) for name in chosen]
    for file in probe_files:
        stem = Path(file).stem
        if stem in {p.name for p in made}:
            raise RecipeError(f"two probes are called `{stem}`", where=f"probe_files: {file}", remedy="rename the file")
        made.append(own_pairs(stem, halve(_pairs(file, columns), half, seed)[:PAIRS]))
    return LanguageSuite(half, tuple(made))


def _drift(name: str, half: Half, seed: int, write: Write, *, counted: bool) -> SpokenProbe:
    """`agreement` or `kl` along the base model's own translations of general sentences."""
    from tunewell.retention.probes.drift import general

    texts = [t[:LONGEST] for t in general(half, seed)[:SENTENCES]]
    k = 1 if name == "agreement" else LIKELIEST

    def arrays(writer: Seq2SeqWriter) -> dict[str, np.ndarray]:
        return following(writer, texts, write(texts), TOKENS, k)._asdict()

    metric = "share" if name == "agreement" else "nats a token"
    items = items_hash("translating", name, texts, TOKENS, k)
    return SpokenProbe(name, TITLES[name], metric, name, tuple(texts), items, arrays, counted=counted)


def own_pairs(name: str, pairs: Sequence[tuple[str, str]]) -> SpokenProbe:
    """Bits per byte of targets given their sources."""

    def arrays(writer: Seq2SeqWriter) -> dict[str, np.ndarray]:
        found = _whole(writer).likelihood([writer.encode(_messages(*pair)) for pair in pairs])
        return {"nats": found.nats, "bytes": found.bytes}

    items = items_hash("pairs", list(pairs))
    return SpokenProbe(name, name, "bits per byte", "bits", tuple(s for s, _ in pairs), items, arrays)


def following(writer: Seq2SeqWriter, sources: Sequence[str], targets: Sequence[str], tokens: int, k: int) -> Next:
    """The k likeliest tokens at every place of targets that are forced, the place after the last one included.

    Returns:
        ids and logs (n, tokens, k); -1 and 0 behind a target's end. An empty target still has its end mark.
    """
    import torch

    from tunewell.tasks.generation.loss import IGNORED

    writer = dataclasses.replace(_whole(writer), max_target_length=tokens)
    rows = [writer.encode(_messages(*pair)) for pair in zip(sources, targets, strict=True)]
    k = min(k, int(writer.model.get_output_embeddings().weight.shape[0]))
    ids = np.full((len(rows), tokens, k), -1, dtype=np.int32)
    logs = np.zeros((len(rows), tokens, k), dtype=np.float32)
    lengths = np.array([len(r.ids) + len(r.labels) for r in rows], dtype=np.int64)
    training, device = writer.model.training, writer.model.device
    writer.model.eval()
    try:
        for index in writer.batches(lengths):
            batch = {name: v.to(device) for name, v in writer.collate([rows[i]._asdict() for i in index]).items()}
            there = (batch.pop("labels") != IGNORED).cpu().numpy()
            with torch.inference_mode():
                best = torch.log_softmax(writer.model(**batch).logits.float(), dim=-1).topk(k)
            for j, i in enumerate(index):
                n = int(there[j].sum())
                ids[i, :n] = best.indices[j, :n].cpu().numpy()
                logs[i, :n] = best.values[j, :n].cpu().numpy()
    finally:
        writer.model.train(training)
    return Next(ids, logs)


def greedy(writer: Seq2SeqWriter, texts: Sequence[str]) -> list[str]:
    """What a model writes of sources, greedily and in fp32, whatever the recipe says of decoding."""
    from tunewell.tasks.generation.writers import Decoding

    plain = dataclasses.replace(_whole(writer), decoding=Decoding(max_new_tokens=TOKENS))
    return plain.write([[{"role": "user", "content": t}] for t in texts])[0]


def _whole(writer: Seq2SeqWriter) -> Seq2SeqWriter:
    """The writer in fp32, with room for general sentences even where the task's own rows are short."""
    return dataclasses.replace(writer, bf16=False, max_length=max(writer.max_length, 128), max_target_length=256)


def _messages(source: str, target: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": source}, {"role": "assistant", "content": target}]


def _pairs(file: str, columns: tuple[str, str]) -> list[tuple[str, str]]:
    """The pairs of a probe file, rows without a text left out."""
    from tunewell.data.load import load

    rows = load(file).dataset
    names = next((c for c in (columns, ("source", "target")) if set(c) <= set(rows.column_names)), None)
    if names is None:
        raise DataError(
            f"columns {', '.join(sorted(rows.column_names))}",
            where=file,
            expected=" or ".join(f"`{a}` and `{b}`" for a, b in dict.fromkeys((columns, ("source", "target")))),
            remedy="pairs of texts and their translations, in columns called as those of the training rows",
        )
    found = [
        (str(s), str(t)) for s, t in zip(rows[names[0]], rows[names[1]], strict=True) if s and t and str(t).strip()
    ]
    if len(found) < LEAST_PAIRS:
        raise DataError(
            f"only {len(found)} pairs", where=file, expected=f"at least {LEAST_PAIRS} for a probe of two halves"
        )
    return found
