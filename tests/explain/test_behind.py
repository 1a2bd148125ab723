"""Training rows behind the answers of a report, by the head alone."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from tunewell.explain.influence import head
from tunewell.explain.influence.behind import CHARACTERS, behind
from tunewell.explain.influence.index import in_memory, query
from tunewell.predict import Predictor

TEXTS = ["a lovely clean room", "dirty and loud", "the breakfast was lovely", "never again , rude staff"]


@pytest.fixture(scope="module")
def predictor(tiny_classifier):
    return Predictor.load(tiny_classifier)


def rows(labels) -> tuple[Dataset, np.ndarray]:
    n = len(TEXTS) * 5
    texts = [f"{TEXTS[i % 4]} {'x' * i}" for i in range(n)]
    targets = np.asarray([i % 2 for i in range(n)])
    names = [labels[t] for t in targets]
    return Dataset.from_dict({"text": texts, "label": names, "row": [i + 11 for i in range(n)]}), targets


def test_they_are_those_of_the_heads_influence_functions(predictor):
    """The same rows as by the method on an index with gradients, which it does not look at."""
    train, targets = rows(predictor.labels)
    found = behind(predictor, TEXTS[:2], None, train, targets, top=3)
    index = in_memory(predictor, list(train["text"]), None, targets)
    scores = head.scores(index, query(predictor, TEXTS[:2], None))
    for sides, own in zip(found, scores, strict=True):
        order = np.argsort(-own, kind="stable")
        assert [b.row - 11 for b in sides.supports] == [j for j in order[:3] if own[j] > 0]
        assert [b.row - 11 for b in sides.opposes] == [j for j in order[::-1][:3] if own[j] < 0]
        assert max(abs(b.score) for b in (*sides.supports, *sides.opposes)) == pytest.approx(1, abs=1e-4)
        for b in (*sides.supports, *sides.opposes):
            assert (b.text, b.label) == (train[b.row - 11]["text"], train[b.row - 11]["label"])


def test_a_pass_forward_alone_gives_the_same_features(predictor):
    train, targets = rows(predictor.labels)
    with_them = in_memory(predictor, list(train["text"]), None, targets)
    without = in_memory(predictor, list(train["text"]), None, targets, gradients=False)
    assert np.allclose(with_them.features, without.features, atol=1e-6)
    assert without.gradients.shape == (len(train), 0)


def test_long_texts_are_cut(predictor):
    train, targets = rows(predictor.labels)
    long = train.map(lambda row: {"text": row["text"] + " room" * 200})
    found = behind(predictor, TEXTS[:1], None, long, targets)[0]
    assert all(len(b.text) == CHARACTERS and b.text.endswith("…") for b in found.supports)


def test_a_run_has_them_in_its_report(tmp_path, tiny_model, tiny_csv):
    import tunewell
    from tunewell.explain.records import Explanations
    from tunewell.report.build import build

    run = tunewell.run(
        model=str(tiny_model), train=str(tiny_csv), text="text", label="label", explain=4, probes="none",
        max_steps=8, output_dir=str(tmp_path / "run"), echo=lambda line: None, progress=False,
    )  # fmt: skip
    kept = Explanations.load(run.dir / "explanations.json")
    assert len(kept.behind) == len(kept.explanations) == 4 and kept.behind_rows == run.summary.n_train
    file = tiny_csv.read_text(encoding="utf-8").splitlines()
    shown = [b for sides in kept.behind for b in (*sides.supports, *sides.opposes)]
    assert shown and all(b.text in file[b.row] for b in shown)
    for lang, words in (("en", "Training rows behind it"), ("zh", "背后的训练行")):
        assert words in build(run.dir, lang).read_text(encoding="utf-8")
