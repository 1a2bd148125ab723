"""ONNX: a graph with free batch size and length, and its weights in 8 bits when asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunewell.errors import ModelError
from tunewell.predict import Predictor

OPSET = 20
FILE = "model.onnx"


def write_onnx(predictor: Predictor, path: Path) -> None:
    """Trace a classifier or regressor into one file: token ids in, logits out.

    Inputs are the tokenizer's (`input_ids`, `attention_mask`, where it has them `token_type_ids`), int64 (batch,
    length); the output `logits` is float32 (batch, C).

    Raises:
        ModelError: an architecture that cannot be traced.
    """
    import torch

    model, tokenizer = predictor.model, predictor.tokenizer
    second = ["and its pair", "one"] if predictor.pair else None
    texts, cut = ["a text", "another text, a little longer"], {"truncation": True, "max_length": predictor.max_length}
    sample = dict(tokenizer(texts, second, return_tensors="pt", padding=True, **cut))
    names = [name for name in tokenizer.model_input_names if name in sample]

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True))).logits

    batch = torch.export.Dim("batch", min=1, max=65_536)
    length = torch.export.Dim("length", min=2, max=int(predictor.max_length))
    logger = logging.getLogger("torch.onnx")  # it tells of every operator of torchvision that it does not need
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                Logits().eval(),
                tuple(sample[name] for name in names),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple({0: batch, 1: length} for _ in names),),
                verbose=False,
            )
            assert program is not None
            program.save(str(path))
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ModelError(
            f"cannot be traced for ONNX: {str(error).splitlines()[0]}",
            where=predictor.source,
            expected="an encoder or decoder of Transformers with a classification head",
        ) from error
    finally:
        logger.setLevel(level)


def write_int8(source: Path, target: Path) -> None:
    """Weights in 8 bits, a scale for each output channel; activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(target), per_channel=True, weight_type=QuantType.QInt8)
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)


class OnnxPredictor:
    """Answers of an exported model, as `Predictor.raw_scores` gives them.

    Args:
        path: the ONNX file; its tokenizer and task are those of `source`.
        threads: of the runtime; 0 leaves it to choose.
    """

    def __init__(self, path: Path, source: Predictor, *, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.source, self.names = source, [i.name for i in self.session.get_inputs()]

    def raw_scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Probabilities (n, C) or values (n,)."""
        from tunewell.export.parity import scores_by

        return scores_by(self.source, texts, pairs, self.names, lambda inputs: self.session.run(None, inputs)[0])
