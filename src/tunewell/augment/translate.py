"""Texts said in other words: into another language and back (Sennrich, Haddow & Birch, 2016, who translate target
texts back for training data; as augmentation of classes, Xie et al., 2020, UDA).

The first copy of a text is translated greedily; further ones are drawn on the way back, so that they differ. A text
that does not fit the models' window, or whose translation does not come to its end, stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewell.errors import ModelError

LONGEST = 256  # tokens of a translation
TOP_P, TEMPERATURE = 0.9, 0.9  # of the copies that are drawn


class BackTranslation:
    """Two translation models.

    Args:
        names: into the other language, and back: assets, folders, hub ids, or runs of `task: translation`.

    Raises:
        ModelError: one of them does not translate.
    """

    def __init__(self, names: Sequence[str], seed: int = 42) -> None:
        self.there, self.back = (_translator(name) for name in names)
        self.seed = seed

    def __call__(self, texts: Sequence[str], copy: int = 0) -> list[str]:
        """Each text in other words.

        Args:
            copy: the how manieth copy of these texts; from the second on words are drawn, with a seed of its own.
        """
        foreign, fine = _translated(self.there, texts)
        decoding = self.back.decoding
        if copy:
            drawn = {"do_sample": True, "top_p": TOP_P, "temperature": TEMPERATURE, "num_beams": 1}
            self.back.decoding = replace(decoding, **drawn, seed=self.seed + copy)
        try:
            again, ended = _translated(self.back, [f if ok else "" for f, ok in zip(foreign, fine, strict=True)])
        finally:
            self.back.decoding = decoding
        return [
            a if first and last and a else text for text, a, first, last in zip(texts, again, fine, ended, strict=True)
        ]


def _translator(name: str) -> Any:
    from tunewell.models.load import locate
    from tunewell.tasks.generation.task import load_writer

    is_run = (Path(name) / "model" / "config.json").is_file()
    writer = load_writer(Path(name if is_run else locate(name)))
    if writer.shift and not is_run:
        raise ModelError(
            "is a decoder, which does not translate without being asked to",
            where=name,
            expected="an encoder-decoder such as bergamot-en-pt, or a run of `task: translation`",
        )
    writer.decoding = replace(writer.decoding, max_new_tokens=LONGEST)
    return writer


def _translated(writer: Any, texts: Sequence[str]) -> tuple[list[str], list[bool]]:
    """Translations, and whether each is whole: the text fitted the window and its translation came to an end."""
    places = [i for i, t in enumerate(texts) if t.strip()]
    prompts = [writer.conversation(texts[i]) for i in places]
    out, fine = [""] * len(texts), [False] * len(texts)
    if not places:
        return out, fine
    written, ended = writer.write(prompts)
    for i, prompt, text, end in zip(places, prompts, written, ended, strict=True):
        out[i] = " ".join(text.split())
        fine[i] = bool(end) and len(writer.prompt(prompt)) < writer.max_length
    return out, fine
