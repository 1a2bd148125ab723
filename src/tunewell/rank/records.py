"""What a ranking returns: plain frozen dataclasses, JSON in and out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Ranked:
    """One candidate, measured without tuning it.

    Attributes:
        name: as it was given: asset, folder or hub id.
        kind: "encoder", "decoder" or "encoder-decoder".
        fits, fit: whether the task is tuned on this kind of model, and why.
        score: what the order goes by, named by `by`; higher is better, to be compared within one ranking only: the
            mean share of the other candidates that it beats by two scores, or minus the bits a byte of answers.
        scores: every score that is defined here, by name.
        layer: the layer whose features score highest (0: the word embeddings); None where none was compared.
        parameters: of the whole model. hidden_size, layers: of its body.
        tokens_per_second: forward, on this machine, as many threads as the process has.
        step_seconds: one measured training step. steps, tuning_seconds: expected of the recipe on all training rows.
        memory_mb: expected peak of weights, gradients, Adam's moments and activations, beside the process itself.
        window: longest input in tokens. cut_share: of rows that are longer than it.
        unknown_share: of the data's tokens that the tokenizer does not know. characters_per_token: of the data.
        licence: where known, else empty. size_mb: of the weights in 32 bits.
        seconds, cpu_seconds: what measuring this candidate took.
        why: one sentence.
    """

    name: str
    kind: str
    fits: bool
    fit: str
    by: str
    score: float
    scores: dict[str, float]
    layer: int | None
    parameters: int
    hidden_size: int
    layers: int
    size_mb: float
    tokens_per_second: float
    step_seconds: float
    steps: int
    tuning_seconds: float
    memory_mb: float
    window: int
    cut_share: float
    unknown_share: float
    characters_per_token: float
    licence: str
    seconds: float
    cpu_seconds: float
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Ranked:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError: of another version.
        """
        return cls(**{f.name: values[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Skipped:
    """A candidate that could not be measured, or that the task cannot be tuned on."""

    name: str
    reason: str


@dataclass(frozen=True)
class Transfer:
    """The best of one's past runs against the base model that it was tuned from, as starts for new labels.

    Attributes:
        run, base: names of the two candidates.
        gain, low, high: how much less the cross-validated linear probe errs on the run's features, with its 95 %
            interval: a share of the rows, or (for scores) of their variance.
        p_value: of the paired permutation test, times the runs that were `tried`.
        helps: True or False where interval and test agree; None where these rows cannot tell.
    """

    run: str
    base: str
    gain: float
    low: float | None
    high: float | None
    p_value: float
    tried: int
    helps: bool | None


@dataclass(frozen=True)
class Ranking:
    """Candidates from best to worst; `best` is the one that `model: auto` takes.

    Attributes:
        task, metric: of the data. by: the score that the order goes by.
        rows, of_rows: rows looked at, and training rows there are. seed: of that sample.
        models: best first, those that fit the task before those that do not. skipped: with the reason.
        transfer: of past runs, whether the best of them helps; None where none were asked for or none can be judged.
        threads: of the measured speed. seconds, cpu_seconds: what it took, candidates from the cache not counted.
        embedded_by: the encoder that past tasks and the new one were compared by (`textemb_cosine` and
            `task2vec_distance` among a run's scores); None where none were.
    """

    task: str
    metric: str
    by: str
    rows: int
    of_rows: int
    seed: int
    models: tuple[Ranked, ...]
    skipped: tuple[Skipped, ...]
    threads: int
    seconds: float
    cpu_seconds: float
    transfer: Transfer | None = None
    embedded_by: str | None = None

    @property
    def best(self) -> Ranked:
        """The first of the models."""
        return self.models[0]

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Ranking:
        """What `to_dict` gave.

        Raises:
            KeyError, TypeError: of another version.
        """
        own = {f.name: values[f.name] for f in fields(cls) if f.name not in ("transfer", "embedded_by")}
        own["embedded_by"] = values.get("embedded_by")
        if transfer := values.get("transfer"):
            own["transfer"] = Transfer(**transfer)
        own["models"] = tuple(Ranked.from_dict(m) for m in own["models"])
        own["skipped"] = tuple(Skipped(**s) for s in own["skipped"])
        return cls(**own)
