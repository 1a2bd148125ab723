"""SavedModel: a tuned encoder that runs in plain TensorFlow, with free batch size and length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.predict import Predictor

FOLDER = "saved_model"
SIGNATURE = "serving_default"
MEANINGS = {
    "input_ids": "ids of the tokens, special ones included, padded with {pad}",
    "attention_mask": "1 for a token, 0 for padding",
    "token_type_ids": "0 for the first text, 1 for the second; padding 0",
}


def write_savedmodel(predictor: Predictor, folder: Path) -> None:
    """Write the twin of a classifier or regressor under the signature `serving_default`.

    Inputs are the tokenizer's (`input_ids`, `attention_mask`, where it has them `token_type_ids`), int64 (batch,
    length). Outputs are `logits`, float32 (batch, C), and for classes `probabilities`, before any calibration.
    """
    import tensorflow as tf
    from tunewell.backends.tensorflow.layers import Dropout
    from tunewell.backends.tensorflow.model import Classifier

    twin, spec, names = Classifier.of(predictor.model), predictor.spec, inputs_of(predictor)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, name=n) for n in names], autograph=False)
    def answer(*given: Any) -> dict[str, Any]:
        batch = {name: tf.cast(value, tf.int32) for name, value in zip(names, given, strict=True)}
        ids = batch["input_ids"]
        types = batch.get("token_type_ids", tf.zeros_like(ids))
        logits = twin.logits(ids, batch["attention_mask"], types, Dropout(None))
        if spec.regression:
            return {"logits": logits}
        return {"logits": logits, "probabilities": tf.sigmoid(logits) if spec.multi_label else tf.nn.softmax(logits)}

    module = tf.Module()
    module.weights, module.answer = list(twin.variables.values()), answer
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: answer})


def inputs_of(predictor: Predictor) -> list[str]:
    """The tokenizer's inputs, in its order."""
    return [name for name in predictor.tokenizer.model_input_names if name in MEANINGS]


class SavedModelPredictor:
    """Answers of a SavedModel, as `Predictor.raw_scores` gives them; its tokenizer and task are those of `source`."""

    def __init__(self, folder: Path, source: Predictor) -> None:
        import tensorflow as tf

        self.source, self.names, self.tensor = source, inputs_of(source), tf.constant
        self.loaded = tf.saved_model.load(str(folder))
        self.answer = self.loaded.signatures[SIGNATURE]

    def raw_scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities (n, C) or values (n,)."""
        from tunewell.export.parity import scores_by

        def answer(inputs: dict[str, np.ndarray]) -> np.ndarray:
            return self.answer(**{name: self.tensor(values) for name, values in inputs.items()})["logits"].numpy()

        return scores_by(self.source, texts, pairs, self.names, answer)


def readme(predictor: Predictor) -> str:
    """How to use the folder, with TensorFlow and a tokenizer alone."""
    from tunewell.export.run import CALIBRATED, mapped

    pad = predictor.tokenizer.pad_token_id
    texts = "[text], [second text]" if predictor.pair else "[text]"
    rows = "\n".join(
        f"| `{name}` | int64 (batch, length) | {MEANINGS[name].format(pad=pad)} |" for name in inputs_of(predictor)
    )
    outputs = "| `logits` | float32 (batch, "
    if predictor.spec.regression:
        outputs += "1) | the value |"
    else:
        count = f"{predictor.spec.outputs})"
        way = "sigmoid" if predictor.spec.multi_label else "softmax"
        outputs += f"{count} | one for each label |\n| `probabilities` | float32 (batch, {count} | their {way} |"
    more = CALIBRATED if mapped(predictor) else ""
    return f"""# A text {"regressor" if predictor.spec.regression else "classifier"} as a SavedModel

```python
import tensorflow as tf
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
answer = tf.saved_model.load("{FOLDER}").signatures["{SIGNATURE}"]
batch = tokenizer({texts}, truncation=True, max_length={predictor.max_length}, padding=True, return_tensors="np")
logits = answer(**{{name: tf.constant(value) for name, value in batch.items()}})["logits"].numpy()
```

The tokenizer is a `tokenizer.json` of the `tokenizers` library, which does without Transformers too. Inputs of the
signature `{SIGNATURE}`, at most {predictor.max_length} tokens long:

| input | type | meaning |
| --- | --- | --- |
{rows}

| output | type | meaning |
| --- | --- | --- |
{outputs}

`tunewell.json` has the labels in the order of the outputs{more}. `export.json` has the comparison with the source \
model.
"""
