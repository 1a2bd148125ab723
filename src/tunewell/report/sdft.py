"""What `sdft` did to the training answers, in sentences: the run's echo and its report say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.report.words import WORDS

if TYPE_CHECKING:
    from tunewell.stages.rewrite import Rewriting


def reasons(record: Rewriting, lang: str = "en") -> list[tuple[str, int]]:
    """Why answers stay as they were, and how many; the most frequent first."""
    w = WORDS[lang]
    return sorted(((w[f"sd_r_{why}"], n) for why, n in record.kept.items()), key=lambda item: -item[1])


def sentences(record: Rewriting, lang: str = "en") -> list[str]:
    """How many answers were rewritten, what it brought, and why the others stay."""
    w = WORDS[lang]
    counts = {"n": f"{record.rewritten:,}", "rows": f"{record.rows:,}"}
    if not record.rewritten:
        out = [w["sd_none"].format(**counts)]
    else:
        out = [w["sd_some"].format(**counts, share=f"{record.rewritten / record.rows:.0%}")]
        bits = record.bits_per_byte
        if bits:
            out.append(
                w["sd_bits"].format(
                    before=f"{bits['original']:.2f}", after=f"{bits['rewritten']:.2f}", m=f"{record.measured:,}"
                )
            )
    if record.kept:
        each = "; ".join(w["sd_each"].format(n=f"{n:,}", why=why) for why, n in reasons(record, lang))
        out.append(w["sd_kept"].format(reasons=each))
    return out


def page_of(record: Rewriting | None, lang: str = "en") -> dict[str, Any]:
    """What the report's section shows; empty for a run without `sdft`."""
    if record is None:
        return {}
    w = WORDS[lang]
    said = {e.why: w[f"sd_r_{e.why}"] for e in record.examples if e.why}
    return {"sentences": sentences(record, lang), "reasons": reasons(record, lang), "said": said}
