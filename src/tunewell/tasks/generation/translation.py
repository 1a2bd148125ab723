"""Translation: what is particular to pairs of source and target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunewell.errors import DataError, nearest
from tunewell.evaluate.answers import Figures, ratio
from tunewell.extras import need
from tunewell.tasks.generation.conversations import canonical
from tunewell.tasks.generation.instructions import BOUNDS as LIKELIHOOD_BOUNDS
from tunewell.tasks.generation.instructions import likelihood_metrics
from tunewell.tasks.generation.pair_checks import placeholders
from tunewell.tasks.rows import opened

if TYPE_CHECKING:
    from datasets import Dataset

    from tunewell.data.load import Loaded
    from tunewell.recipe import Recipe
    from tunewell.tasks.generation.writers import Likelihood

MEASURES = ("sacrebleu",)  # of the extra `generate`
HEADLINES = ("chrf", "bleu", "token_accuracy")
BOUNDS = {**LIKELIHOOD_BOUNDS, "chrf": (0.0, 100.0), "bleu": (0.0, 100.0), "length_ratio": (0.0, np.inf)}
USUAL = (("source", "target"), ("src", "tgt"), ("translation", "translation"))
LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "pt": "Portuguese", "it": "Italian",
    "nl": "Dutch", "zh": "Chinese", "ja": "Japanese", "ru": "Russian", "pl": "Polish", "cs": "Czech",
}  # fmt: skip


# ---------------------------------------------------------------- rows


def columns_of(loaded: Loaded, recipe: Recipe) -> tuple[str, str]:
    """The columns of source and target; for a column of {"en": …, "de": …} objects these are their languages.

    Raises:
        DataError: a named column is missing, or none were named and none can be told.
    """
    names = loaded.dataset.column_names
    keys = names
    if "translation" in names:
        first = opened(loaded.dataset[0]["translation"])
        keys = [*names, *first] if isinstance(first, dict) else names
    out = []
    for role, asked, place in (("source", recipe.source, 0), ("target", recipe.target, 1)):
        asked = _by_language(asked, keys)
        if asked is not None and asked not in keys:
            raise DataError(
                f"no column `{asked}`",
                where=loaded.source,
                expected="one of " + ", ".join(keys),
                remedy=nearest(asked, keys),
            )
        found = asked or next((pair[place] for pair in USUAL[:2] if pair[place] in keys), None)
        if found is None:
            raise DataError(
                f"cannot tell which column holds the {role}",
                where=loaded.source,
                expected="columns source and target",
                remedy=f"--{role} COLUMN (the file has {', '.join(keys[:10])})",
            )
        out.append(found)
    if out[0] == out[1]:
        raise DataError("source and target are the same column", where=loaded.source, expected="two columns")
    return out[0], out[1]


def _by_language(asked: str | None, keys: Sequence[str]) -> str | None:
    """`en` stands for `en-US` where that is the only English column (translation memories name regions)."""
    if asked is None or asked in keys:
        return asked
    regions = [key for key in keys if re.split(r"[_-]", key.lower())[0] == asked.lower()]
    return regions[0] if len(regions) == 1 else asked


def read_pairs(
    loaded: Loaded, columns: tuple[str, str], prefix: str, group: str | None
) -> tuple[list[dict[str, Any]], dict[str, int], Counter[str]]:
    """Canonical rows: `text` (the source), `label` (the target), `messages`."""
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for number, row in enumerate(loaded.dataset, 1):
        both = opened(row.get("translation"))
        cells = {**row, **(both if isinstance(both, dict) else {})}
        source, target = (str(cells[c]).strip() if cells.get(c) is not None else "" for c in columns)
        if not source or not target:
            dropped["no source" if not source else "no target"] += 1
            continue
        made = canonical(pair_messages(source, target, prefix), loaded.source, number)
        rows.append({**made, "text": source, "group": str(row[group]) if group else source})
    return rows, dict(dropped), Counter()


def pair_messages(source: str, target: str | None, prefix: str) -> list[dict[str, Any]]:
    """A pair as a conversation."""
    asked = [{"role": "user", "content": prefix + source}]
    return asked if target is None else [*asked, {"role": "assistant", "content": target}]


def prompt_prefix(recipe: Recipe, columns: tuple[str, str]) -> str:
    """What a decoder is told before each source, by the names of the languages where they are known."""
    if recipe.source_prefix is not None:
        return recipe.source_prefix
    codes = (recipe.source_lang or columns[0], recipe.target_lang or columns[1])
    names = [LANGUAGES.get(re.split(r"[_-]", code.lower())[0]) for code in codes]
    if names[0] and names[1]:
        return f"Translate from {names[0]} to {names[1]}: "
    return "Translate: "


def load_aligned(path: str, load: Callable[[str], Loaded], recipe: Recipe) -> Loaded:
    """A file of pairs, or two files written as `a.en,a.de`: line-aligned, or JSON objects with the same keys.

    Raises:
        DataError: the two have not the same number of lines, or no key in common.
    """
    from datasets import Dataset

    from tunewell.data.load import Loaded as Made
    from tunewell.data.load import missing_file

    if "," not in path or Path(path).exists():
        return load(path)
    names = [p.strip() for p in path.split(",")]
    if len(names) != 2:
        raise DataError(f"{len(names)} files", where=path, expected="two line-aligned files: source,target")
    columns = (recipe.source or "source", recipe.target or "target")
    if all(name.lower().endswith(".json") for name in names):
        from tunewell.data.ui_strings import join_files

        joined, notices = join_files((names[0], names[1]), columns)
        return Made(joined, path, "json", None, tuple(notices))
    texts = []
    for name in names:
        file = Path(name)
        if not file.is_file():
            raise missing_file(file, name)
        encoding = "utf-8-sig" if recipe.encoding == "auto" else recipe.encoding
        try:
            texts.append(file.read_text(encoding=encoding).split("\n"))
        except (UnicodeDecodeError, LookupError) as error:
            raise DataError(f"cannot be read as {encoding}: {error}", where=name, remedy="name its encoding") from None
        if texts[-1] and texts[-1][-1] == "":
            texts[-1].pop()
    if len(texts[0]) != len(texts[1]):
        raise DataError(
            f"{len(texts[0]):,} lines against {len(texts[1]):,}",
            where=path,
            expected="two files in which line i translates line i",
        )
    rows = Dataset.from_dict(dict(zip(columns, texts, strict=True)))
    return Made(rows, path, "lines", None, ())


# ---------------------------------------------------------------- figures


def bleu_of(statistics: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """BLEU (Papineni et al., 2002) as sacreBLEU computes it: the sums of rows, exponential smoothing.

    Args:
        statistics: (n, 10): lengths of answer and reference, matches of 1 to 4 words, their numbers.

    Returns:
        Weights (n, B) -> (B,) from 0 to 100.
    """

    def of(weights: np.ndarray) -> np.ndarray:
        sums = statistics.T @ weights
        length, reference, right, all_ = sums[0], sums[1], sums[2:6], sums[6:10]
        with np.errstate(divide="ignore", invalid="ignore"):
            smooth, log_sum = np.ones(weights.shape[1]), np.zeros(weights.shape[1])
            for k in range(4):
                smooth = np.where((right[k] == 0) & (all_[k] > 0), smooth * 2, smooth)
                share = np.where(right[k] > 0, right[k] / all_[k], 1 / (smooth * all_[k]))
                log_sum += np.log(np.where(all_[k] > 0, share, 0.0))
            brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
            return np.where((length > 0) & (right.sum(axis=0) > 0), 100 * brevity * np.exp(log_sum / 4), 0.0)

    return of


def chrf_of(statistics: np.ndarray, beta: float = 2.0) -> Callable[[np.ndarray], np.ndarray]:
    """chrF++ (Popović, 2017) as sacreBLEU computes it: precision and recall averaged over the orders that occur.

    Args:
        statistics: (n, 3 K): for each order the numbers in answer and reference, and matches.
    """

    def of(weights: np.ndarray) -> np.ndarray:
        sums = (statistics.T @ weights).reshape(-1, 3, weights.shape[1])
        answer, reference, match = sums[:, 0], sums[:, 1], sums[:, 2]
        seen = (answer > 0) & (reference > 0)
        orders = np.maximum(seen.sum(axis=0), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(seen, match / answer, 0.0).sum(axis=0) / orders
            recall = np.where(seen, match / reference, 0.0).sum(axis=0) / orders
            factor = beta**2
            score = (1 + factor) * precision * recall / (factor * precision + recall)
        return 100 * np.nan_to_num(score)

    return of


def statistics_of(written: Sequence[str], references: Sequence[str]) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """sacreBLEU's counts of each row, for BLEU and chrF++, and the signatures (Post, 2018)."""
    need("generate", "BLEU and chrF++", modules=MEASURES)
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(tokenize=tokenizer_for(references)), CHRF(word_order=2)
    signatures = {}
    out = []
    for name, metric in (("bleu", bleu), ("chrf", chrf)):
        metric.corpus_score(list(written), [list(references)])
        signatures[name] = str(metric.get_signature())
        out.append(np.array(metric._extract_corpus_statistics(list(written), [list(references)]), dtype=np.float64))
    return out[0], out[1], signatures


def tokenizer_for(references: Sequence[str]) -> str:
    """sacreBLEU's tokenizer for a language without spaces, else its default."""
    text = "".join(references[:200])
    letters = sum(map(str.isalpha, text)) or 1
    if len(re.findall(r"[\u3040-\u30ff]", text)) > 0.1 * letters:
        return "char"
    return "zh" if len(re.findall(r"[\u4e00-\u9fff]", text)) > 0.3 * letters else "13a"


def placeholders_kept(
    sources: Sequence[str], written: Sequence[str], place: np.ndarray, n: int
) -> tuple[np.ndarray, int]:
    """(n,) 1 where a translation has the placeholders and tags of its source, 0 where not, nan in rows whose source
    has none or that are not at `place`; and how many sources have some."""
    out = np.full(n, np.nan)
    for i, source, text in zip(place, sources, written, strict=True):
        if wanted := placeholders(source):
            out[i] = float(placeholders(text) == wanted)
    return out, int((~np.isnan(out)).sum())


def figures(
    rows: Dataset, likelihood: Likelihood | None, written: Sequence[str] | None, place: np.ndarray, metric: str
) -> tuple[Figures, dict[str, str]]:
    """All metrics of one model, and the signatures; what is written is scored on the rows at `place` alone."""
    n = len(rows)
    metrics = likelihood_metrics(likelihood, n)
    points = np.full(n, np.nan)
    signatures: dict[str, str] = {}
    about = "sentence chrF++ by row"
    if written is not None:
        references = [rows["label"][int(i)] for i in place]
        bleu, chrf, signatures = statistics_of(written, references)
        size = np.full((2, n), np.nan)  # characters of translation and reference
        size[:, place] = [list(map(len, written)), list(map(len, references))]
        chrf_at, bleu_at = chrf_of(chrf), bleu_of(bleu)
        metrics |= {
            "chrf": lambda w: chrf_at(w[place]),
            "bleu": lambda w: bleu_at(w[place]),
            "length_ratio": ratio(size[0], size[1]),
        }
        points[place] = [float(chrf_of(row[None])(np.ones((1, 1)))[0]) for row in chrf]
        kept, holding = placeholders_kept([rows["text"][int(i)] for i in place], written, place, n)
        if holding:
            metrics["placeholders"] = ratio(kept)
    else:
        holding = 0
        metrics |= {name: lambda w: np.full(w.shape[1], np.nan) for name in ("chrf", "bleu", "length_ratio")}
    if metric == "token_accuracy":
        about = "token accuracy by row"
        points = likelihood.right / likelihood.tokens if likelihood is not None else np.full(n, np.nan)
    counts = dict.fromkeys(("chrf", "bleu", "length_ratio"), len(place)) | {"placeholders": holding}
    measure = Figures(lambda w: {name: of(w) for name, of in metrics.items()}, n, points, about, counts, BOUNDS)
    return measure, signatures
