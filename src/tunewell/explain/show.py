"""Explanations for a terminal: words with sign and number, colours on top where there are any."""

from __future__ import annotations

from collections.abc import Sequence

from tunewell.explain.answers.records import WrittenExplanation
from tunewell.explain.faithfulness import Faithfulness
from tunewell.explain.records import Explanation, Tried
from tunewell.explain.sanity import Sanity
from tunewell.explain.stability import Stability

BLUE, ORANGE, DIM, OFF = "\033[94;1m", "\033[38;5;208;1m", "\033[2m", "\033[0m"
NUMBERED = 0.15  # of the largest score: words above it carry their number
LISTED = 6


def text_of(e: Explanation, *, colour: bool, width: int = 100) -> str:
    """One explanation as lines of text.

    Args:
        colour: blue for words that speak for the target, orange for those against; sign and number are there anyway.
        width: columns to fill.
    """
    from tunewell.cli.show import _width, printable

    answer = f"{e.score:.4g}" if e.probability is None else f"{e.target or '(no answer)'} {e.probability:.3f}"
    others = ""
    if e.target is not None and e.prediction != e.target:
        said = ", ".join(e.prediction) if isinstance(e.prediction, tuple) else str(e.prediction)
        nothing = "no answer" if e.text_pair is not None and e.answer is not None else "none of its labels"
        others = f" (the model's answer: {said or nothing})"
    delta = "" if e.convergence_delta is None else f", sum off by {e.convergence_delta:.1g} of {e.expected_sum:.3g}"
    lines = [printable(f"{answer}{others}") + f"  ·  {e.method}{delta}"]
    for part in (0, 1):
        cells = [_cell(e, i, colour) for i in range(len(e.words)) if e.part[i] == part]
        if part == 1 and e.answer is not None and e.text_pair is not None:
            before = sum(1 for i in range(len(e.words)) if e.part[i] == 1 and e.spans[i][0] < e.answer[0])
            said = printable(f"[{e.text_pair[slice(*e.answer)]}]")
            cells.insert(before, (said, _width(said)))
        if cells:
            lines += [""] + ["  " + line for line in _wrapped(cells, width - 2)]
    lines.append("")
    ranked = sorted(range(len(e.words)), key=lambda i: -e.scores[i])
    raised, lowered = ("raise it", "lower it") if e.target is None else ("for", "against")
    for name, picked in (
        (raised, [i for i in ranked if e.scores[i] > 0][:LISTED]),
        (lowered, [i for i in ranked[::-1] if e.scores[i] < 0][:LISTED]),
    ):
        if picked:
            lines.append(f"  {name}: " + ", ".join(f"{printable(e.words[i])} {_signed(e, i)}" for i in picked))
    lines.append("  " + sentence(e.faithfulness))
    if e.stability is not None:
        lines.append("  " + steadiness(e.stability))
    if e.cut:
        lines.append(f"  {e.cut:,} more words lie beyond the model's window: it never saw them")
    return "\n".join(lines)


def steadiness(s: Stability) -> str:
    """Stability in plain words.

    >>> steadiness(Stability(0.0, 2, 0, 0.9, 0.25))
    'stability: reworded (2 variants): rank correlation 0.90, largest change 25 % of the largest score; padded: 0 %'
    """
    if not s.variants:
        said = ["every rewording turned the answer" if s.turned else "no rewording changes what the model reads"]
    else:
        kept = "" if s.correlation is None else f"rank correlation {s.correlation:.2f}, "
        said = [
            f"reworded ({s.variants} variant{'s' * (s.variants > 1)}): {kept}largest change "
            f"{s.difference or 0:.0%} of the largest score"
        ]
        if s.turned:
            said.append(f"{s.turned} more turned the answer")
    if s.padding is not None:
        said.append(f"padded: {s.padding:.0%}")
    return "stability: " + "; ".join(said).replace("%", " %")


def sentence(f: Faithfulness) -> str:
    """Faithfulness in plain words.

    >>> f = Faithfulness(0.5, 0.02, 0.1, 0.3, 0.0, 0.6, (0.2,), (0.5,), (0.02,))
    >>> print(sentence(f))
    faithful: without its top words the probability falls by 0.50 (random words: 0.10), with them alone by 0.02 (0.30)
    """
    if f.unit == "label":
        said = (
            f"without its top words the value moves by {f.comprehensiveness:.3g} (random words: "
            f"{f.comprehensiveness_random:.3g}), with them alone by {f.sufficiency:.3g} ({f.sufficiency_random:.3g})"
        )
    elif f.unit == "log-probability":
        said = (
            f"without its top words the log-probability {_falls(f.comprehensiveness)} (random words: "
            f"{f.comprehensiveness_random:.2f}), with them alone {_falls(f.sufficiency, verb=f.sufficiency < 0)} "
            f"({f.sufficiency_random:.2f})"
        )
    else:
        said = (
            f"without its top words the probability {_falls(f.comprehensiveness)} (random words: "
            f"{f.comprehensiveness_random:.2f}), with them alone {_falls(f.sufficiency, verb=f.sufficiency < 0)} "
            f"({f.sufficiency_random:.2f})"
        )
    if f.beats_random:
        return "faithful: " + said
    half = f.comprehensiveness > f.comprehensiveness_random or f.sufficiency < f.sufficiency_random
    return ("faithful in one way only: " if half else "not faithful, no better than random words: ") + said


def _falls(value: float, verb: bool = True) -> str:
    words = f"by {abs(value):.2f}"
    return ("rises " if value < -0.005 else "falls ") + words if verb else words


def written_text(e: WrittenExplanation, *, width: int = 100) -> str:
    """An explanation of a written answer as lines of text: behind each of its words the words that it came from.

    Args:
        width: columns to fill.
    """
    from tunewell.cli.show import _width, printable, table

    rows = [("answer", "log p", "comes from")]
    left = max(24, width - 12 - max(_width(printable(word)) for word in e.answer_words))
    for word, sure, scores in zip(e.answer_words, e.log_probabilities, e.matrix, strict=True):
        largest = max(map(abs, scores)) or 1.0
        ranked = sorted(range(len(scores)), key=lambda i: -abs(scores[i]))
        cells: list[str] = []
        for i in ranked[:LISTED]:
            cell = f"{printable(e.words[i])} {scores[i]:+.2f}"
            if abs(scores[i]) < NUMBERED * largest or sum(map(_width, [*cells, cell])) + 2 * len(cells) > left:
                break
            cells.append(cell)
        rows.append((printable(word), f"{sure:.2f}", ", ".join(cells)))
    ranked = sorted(range(len(e.words)), key=lambda i: -e.scores[i])[:LISTED]
    lines = [printable(f"{e.answer}") + f"  ·  {e.method}", "", table(rows, right=(1,)), ""]
    best = ", ".join(f"{printable(e.words[i])} {e.scores[i]:+.2f}" for i in ranked if e.scores[i] > 0)
    lines.append(f"  behind the whole answer: {best or 'no word speaks for it'}")
    lines.append("  " + sentence(e.faithfulness))
    if e.prediction is None:
        lines.append("  this answer was given with --target; the model did not write it")
    if e.earlier:
        lines.append(f"  {e.earlier:,} earlier messages stay as they are")
    if e.cut:
        lines.append(f"  {e.cut:,} more words lie beyond the model's window: it never saw them")
    return "\n".join(lines)


def tried_table(tried: Sequence[Tried]) -> str:
    """What `auto` tried, as lines."""
    from tunewell.cli.show import number, table

    rows = [("tried", "comprehensiveness", "sufficiency", "difference", "")]
    rows += [(t.method, number(t.comprehensiveness), number(t.sufficiency), number(t.gap), t.note) for t in tried]
    return table(rows, right=(1, 2, 3))


def sanity_table(found: Sanity) -> str:
    """The randomisation check, as lines."""
    from tunewell.cli.show import interval, number, table

    rows = [("random from the top down to", "rank correlation", "95 % interval")]
    rows += [(s.part, number(s.correlation.value, 2), interval(s.correlation, 2)) for s in found.steps]
    verdict = (
        "the scores follow the weights"
        if found.passed
        else "the scores hardly change when the model does: they show the text, not the model"
    )
    return f"{found.method}: {verdict}\n" + table(rows, right=(1,))


def _signed(e: Explanation, i: int) -> str:
    interval = f" [{e.low[i]:+.2f}, {e.high[i]:+.2f}]" if e.low is not None and e.high is not None else ""
    return f"{e.scores[i]:+.2f}{interval}"


def _cell(e: Explanation, i: int, colour: bool) -> tuple[str, int]:
    """A word as it is printed, and how many columns it takes."""
    from tunewell.cli.show import _width, printable

    score, largest = e.scores[i], max(map(abs, e.scores)) or 1.0
    word = printable(e.words[i])
    loud = abs(score) >= NUMBERED * largest and score != 0
    plain = f"{word}({score:+.2g})" if loud else word
    if not colour:
        return plain, _width(plain)
    return f"{(BLUE if score > 0 else ORANGE) if loud else DIM}{plain}{OFF}", _width(plain)


def _wrapped(cells: Sequence[tuple[str, int]], width: int) -> list[str]:
    lines, used = [""], 0
    for cell, size in cells:
        if used and used + 1 + size > width:
            lines.append("")
            used = 0
        lines[-1] += (" " if used else "") + cell
        used += size + (1 if used else 0)
    return lines
