"""The budget: which candidate is chosen, and the frontier between task score and retention."""

from __future__ import annotations

from collections.abc import Sequence

from tunewell.results import Candidate, Choice, Estimate

CLOSE = 5e-4  # scores that differ by less are taken as equal; the one that keeps more wins


def meets(candidate: Candidate, keep: float | None, keep_worst: float | None) -> bool | None:
    """Whether a candidate is inside the budget on the select halves; None without a budget."""
    if keep is None and keep_worst is None:
        return None
    floors = ((candidate.retention_mean, keep), (candidate.retention_worst, keep_worst))
    return all(
        floor is None or (value is not None and value.value is not None and value.value >= floor)
        for value, floor in floors
    )


def safely(candidate: Candidate, keep: float | None, keep_worst: float | None) -> bool:
    """Whether a candidate is inside the budget by a standard error of what it keeps, on the select halves.

    What is just inside there is as often just outside on the report halves. True without a budget; a figure without
    an interval counts as exact.
    """

    def clears(value: Estimate | None, floor: float | None) -> bool:
        if floor is None:
            return True
        return value is not None and value.value is not None and value.value - (value.standard_error or 0.0) >= floor

    return clears(candidate.retention_mean, keep) and clears(candidate.retention_worst, keep_worst)


def choose(candidates: Sequence[Candidate], *, keep: float | None, keep_worst: float | None) -> Choice:
    """The best validation score among the candidates inside the budget.

    Candidates that are inside by a standard error (`safely`) go before those that are only just inside. A point derived
    from a tuned model (an average with the base) must be better than the tuned model by a standard error of its score.
    When none is inside, the one that keeps most is chosen (then the better score) and `met` is False.
    Without validation rows nothing has a score: then the candidate inside the budget that is furthest from the base
    model is chosen, the tuned one itself where there is no budget.
    Floors are held against the select halves, so the report halves may fall short by chance: whether the budget is
    kept is decided there, and said.

    Raises:
        ValueError: no candidates.
    """
    if not candidates:
        raise ValueError("no candidates")
    judged = [c.model_copy(update={"meets": meets(c, keep, keep_worst), "chosen": False}) for c in candidates]
    inside = [i for i, c in enumerate(judged) if c.meets is not False]
    safe = [i for i in inside if safely(judged[i], keep, keep_worst)]
    pool = safe or inside or list(range(len(judged)))

    def score(i: int) -> float:
        value = judged[i].score.value
        return value if value is not None else float("-inf")

    def kept(i: int) -> float:
        mean = judged[i].retention_mean
        return mean.value if mean is not None and mean.value is not None else float("-inf")

    if inside and all(judged[i].score.value is None for i in pool):  # no validation rows
        winner = min(pool, key=lambda i: (kept(i), i)) if keep or keep_worst else pool[0]
    elif inside:
        best = max(score(i) for i in pool)
        winner = max((i for i in pool if score(i) >= best - CLOSE), key=lambda i: (kept(i), score(i), -i))
        winner = _as_tuned(judged, pool, winner)
    else:
        winner = max(pool, key=lambda i: (kept(i), score(i), -i))
    judged[winner] = judged[winner].model_copy(update={"chosen": True})
    met = None if keep is None and keep_worst is None else bool(inside)
    return Choice(
        keep=keep,
        keep_worst=keep_worst,
        met=met,
        candidates=tuple(judged),
        reason=_reason(met, len(inside), len(safe), len(judged), scored=any(c.score.value is not None for c in judged)),
    )


def _as_tuned(candidates: Sequence[Candidate], pool: Sequence[int], winner: int) -> int:
    """The tuned model itself instead of a point derived from it, unless that point is better by a standard error.

    Weights between the base model and the tuned one are a step back on the task: on few validation rows
    they win by luck as often as not (the rule of one standard error; Breiman et al., 1984).
    """
    best = candidates[winner]
    if not best.parameters:
        return winner
    for i in pool:
        c = candidates[i]
        if c.parameters or c.strategy != best.strategy or c.score.value is None or best.score.value is None:
            continue
        error = c.score.standard_error
        if error is not None and best.score.value - c.score.value <= error:
            return i
    return winner


def _reason(met: bool | None, inside: int, safe: int, total: int, scored: bool = True) -> str:
    if not scored and total > 1 and met is None:
        return "no validation rows: the tuned model"
    if not scored and total > 1 and met:
        return f"no validation rows: the furthest from the base of the {inside} of {total} inside the budget"
    if met is None:
        return "no budget was set: the best validation score" if total > 1 else "the only candidate"
    if met and not safe:
        return f"the best validation score among the {inside} of {total} candidates just inside the budget"
    if met:
        also = f" by a standard error ({inside} in all)" if safe < inside else ""
        return f"the best validation score among the {safe} of {total} candidates inside the budget{also}"
    return f"none of the {total} candidates is inside the budget: the one that keeps most"


def frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other beats on both validation score and mean retention, best score first."""

    def figures(c: Candidate) -> tuple[float, float]:
        mean = c.retention_mean.value if c.retention_mean is not None else None
        score = c.score.value
        return (score if score is not None else float("-inf"), mean if mean is not None else float("-inf"))

    out = []
    for c in candidates:
        s, r = figures(c)
        beaten = any((a >= s and b >= r) and (a > s or b > r) for a, b in (figures(o) for o in candidates))
        if not beaten:
            out.append(c)
    return sorted(out, key=lambda c: -figures(c)[0])
