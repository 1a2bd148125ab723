"""What a finished run can be asked about its answers: words, changes, training rows, tests of behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.explain.checklist import Checklist
    from tunewell.explain.influence.label_errors import LabelErrors
    from tunewell.explain.sanity import Sanity
    from tunewell.explain.stability import Stability


class Asked:
    """The part of `Run` that explains. It needs the folder `dir` and `predictor`."""

    dir: Path
    predictor: Any

    def explain(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any) -> list[Any]:
        """Which words decided, one `Explanation` a text, with its faithfulness; a `WrittenExplanation` (words of the
        answer × words of the source) where the model writes.

        Args:
            texts: texts; questions, with contexts as `text_pairs`; sources or prompts.
            options: `method` ("auto" or a name), `target` (a label, or an answer), `budget` (seconds), `seed`; see
                `tunewell.explain.why.why`.
        """
        from tunewell.explain.why import why

        return list(why(self.predictor, texts, text_pairs, **options))

    def sanity(self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any) -> Sanity:
        """Whether a method's scores follow the weights: the model-randomisation check, for classes and scores.

        Args:
            options: `method` (a name), `seed`; see `tunewell.explain.sanity.sanity`.
        """
        from tunewell.explain.sanity import sanity

        return sanity(self.predictor, texts, text_pairs, **options)

    def stability(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any
    ) -> list[Stability]:
        """Whether scores stay when a text is padded or reworded, one `Stability` a text; for classes and scores.

        Args:
            options: `method` (a name), `target` (a label), `seed`; see `tunewell.explain.stability.stability`.
        """
        from tunewell.explain.stability import stability

        return stability(self.predictor, texts, text_pairs, **options)

    def counterfactuals(
        self, texts: Sequence[str], text_pairs: Sequence[str] | None = None, **options: Any
    ) -> list[Any]:
        """The smallest change that turns each answer, one `Counterfactual` a text; for classes.

        Args:
            options: `target` (a label), `most` (words taken out), `rows` (texts read for one), `mask_model` (proposes
                words to put in); see `tunewell.explain.counterfactual.search.counterfactual_rows`.
        """
        from tunewell.explain.counterfactual.search import counterfactuals

        return counterfactuals(self.predictor, texts, text_pairs, **options)

    def influence(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        train: str | None = None,
        **options: Any,
    ) -> list[Any]:
        """The training rows that push each answer up and down, one `Attribution` a text; an `AnswerAttribution` where
        the model writes. The first question builds an index in the run's folder.

        Args:
            train: where the training file is now, if it was moved.
            options: `method`, `top` (rows each way) and `label` (by default the predicted one); of a run that writes
                `answers` in place of `label` and `text_pairs`. See `Influence.explain` and `AnswerInfluence.explain`.
        """
        asked = self._traced.get(train)
        if asked is None:
            asked = self._traced[train] = self._trace(train)
        return asked.explain(texts, **({} if text_pairs is None else {"text_pairs": text_pairs}), **options)

    def _trace(self, train: str | None) -> Any:
        from tunewell.explain.influence.answers.rows import task_at
        from tunewell.tasks.spec import WRITING

        if task_at(self.dir) in WRITING:
            from tunewell.explain.influence.answers.attribute import AnswerInfluence

            return AnswerInfluence(self.dir, train=train)
        from tunewell.explain.influence.attribute import Influence

        return Influence(self.dir, train=train)

    @cached_property
    def _traced(self) -> dict[str | None, Any]:
        """Influence by the place of the training file: its index is read once."""
        return {}

    def label_errors(self, *, train: str | None = None) -> LabelErrors:
        """The rows of the training file, the most suspicious label first; for classes and scores.

        Args:
            train: where the training file is now, if it was moved.
        """
        from tunewell.explain.influence.label_errors import label_errors

        return label_errors(self.dir, train=train)

    def checklist(self, some: Sequence[dict[str, Any]] | None = None, **options: Any) -> Checklist:
        """Behavioural tests, also written into the folder as checklist.json; for classes and scores.

        Args:
            some: rows with `text` (and `text_pair`); by default the run's test rows.
            options: `rows` (how many at the most), `negation` ("auto", "changes" or "same"), `seed`; see
                `tunewell.stages.checklist.checklist_of`.
        """
        from tunewell.stages.checklist import checklist_of

        return checklist_of(self.dir, some, **options)
