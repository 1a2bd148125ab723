"""Whether the base model knows the language of the texts."""

from __future__ import annotations

from tunewell.results import CheckReport, Finding

ENGLISH_ENCODERS = ("all-MiniLM-L6-v2", "splade-tiny")  # packaged, and trained on English alone
MULTILINGUAL = "multilingual-e5-small"
MOST = 0.5  # share of the texts whose language is clear


def unknown_language(report: CheckReport, model: str) -> Finding | None:
    """A warning when most texts are in a language that a packaged English encoder does not know.

    Args:
        model: the base model as the recipe names it.
    """
    from tunewell.assets import find

    asset = find(model, kind="model")
    if asset is None or asset.name not in ENGLISH_ENCODERS:
        return None
    foreign = {name: share for name, share in report.languages.items() if name != "en"}
    share = sum(foreign.values())
    if share <= MOST:
        return None
    main = max(foreign, key=lambda name: foreign[name])
    return Finding(
        code="unknown-language",
        severity="warning",
        title="A language that the base model does not know",
        count=round(share * report.rows),
        message=f"{share:.0%} of the texts are not in English (most are in {main}), but {asset.name} knows English "
        "only: it cuts them into single characters or unknown pieces.",
        remedy=f"--model {MULTILINGUAL} knows about 100 languages (packaged), "
        "or name a model of this language by hub id or folder",
    )
