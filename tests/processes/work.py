"""One tuning of a tiny model, alone or as one of several processes: `python work.py SETTINGS.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def tuned(settings: dict[str, Any]) -> dict[str, Any]:
    """Tune as the settings say; what counts of the record, the weights in `folder`/weights.safetensors."""
    import numpy as np
    from datasets import Dataset
    from safetensors.torch import save_file

    from tunewell import processes
    from tunewell.models.embed import logits
    from tunewell.models.load import load_classifier, load_tokenizer
    from tunewell.recipe_file import load_recipe
    from tunewell.strategies import strategy_class
    from tunewell.tasks import TaskSpec
    from tunewell.train.tune import tune

    processes.begin()
    folder, place = Path(settings["folder"]), settings["model"]
    spec = TaskSpec("text-classification", ("negative", "positive"))
    texts, labels = settings["texts"], np.array(settings["labels"])
    recipe = load_recipe(strategy=settings["strategies"], **settings["keys"])
    tokenizer, model = load_tokenizer("tiny", place), load_classifier(place, spec, seed=recipe.seed)
    asked: list[int] = []

    def validate(m: Any) -> dict[str, float]:
        asked.append(1)
        return {"f1_macro": float(logits(m, tokenizer, texts[:8], max_length=32).std())}

    record = tune(
        model, tokenizer, spec, Dataset.from_dict({"text": texts, "label": labels.tolist()}), recipe=recipe,
        max_length=32, targets=labels, validate=validate, strategies=[strategy_class(s)(recipe.model_dump())
        for s in recipe.strategies], folder=folder, echo=lambda line: None, progress=False,
    )  # fmt: skip
    if processes.rank() == 0:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, str(folder / "weights.safetensors"))
    return {
        "steps": record.steps, "examples": record.examples, "tokens": record.tokens, "best_step": record.best_step,
        "stopped_early": record.stopped_early, "losses": [e["loss"] for e in record.history if "loss" in e],
        "norms": [e["grad_norm"] for e in record.history if "grad_norm" in e], "validations": len(asked),
    }  # fmt: skip


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    from tunewell import processes as p

    found = tuned(given)
    Path(sys.argv[1]).with_name(f"record-{p.rank()}.json").write_text(json.dumps(found))
