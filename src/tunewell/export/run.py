"""`tunewell export` as a story: load the run, write it in another form, prove that it is the same, say how fast."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tunewell.errors import ModelError, RunFolderError
from tunewell.export.gguf import Weights
from tunewell.export.llamacpp import Written
from tunewell.export.parity import Parity, compare
from tunewell.export.push import Pushed
from tunewell.results import Record, cannot_write, write_whole

Form = Literal["onnx", "savedmodel", "gguf", "merged", "hub", "mlflow"]
EXACT = 1e-4  # largest difference of a probability in fp32
ALIKE = 0.97  # least share of the same answers in 8 bits
SCORES_OFF = 0.1  # largest difference of scores in 8 bits, as a share of their spread: 1 % of their variance
SHIPPED = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
           "chat_template.jinja")  # fmt: skip
WHOLE = ("gguf", "mlflow")  # forms that place all their files themselves, and need no head
CALIBRATED = ", and under `calibrator` the map from their probabilities to those that `tunewell predict` gives"


class Exported(Record):
    """`export.json`: what was written, from what, and how near it is.

    Attributes:
        files: name -> size in bytes. parity: of classes and scores. written: of a decoder in llama.cpp.
        weights: of GGUF, what matrices are kept as. push: what went to the hub, in `--json` alone.
    """

    form: Form
    source: str
    int8: bool
    files: dict[str, int]
    parity: Parity | None = None
    written: Written | None = None
    weights: str = ""
    push: Pushed | None = None


def export(
    run: str | Path,
    output: str | Path,
    *,
    to: Form = "onnx",
    int8: bool = False,
    weights: Weights | None = None,
    overwrite: bool = False,
    echo: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a tuned model in another form; nothing stays unless it gives the source model's answers.

    Args:
        run: a run folder or a plain Transformers folder, of classes or scores; of a decoder for `gguf`. output: a new
            folder.
        to: `onnx`; `savedmodel`, of TensorFlow; `gguf`, of llama.cpp; `merged`, weights and tokenizer alone; `hub`,
            the same with the card; `mlflow`, a folder that MLflow loads, serves and registers, for every task.
        int8: of ONNX, weights in 8 bits. weights: of GGUF: f32, f16 (by default) or q8_0.

    Raises:
        ModelError: the export differs from the source by more than rounding, or the model cannot be exported.
        RunFolderError: the output is there already, is no earlier export, holds the run, or cannot be written.
    """
    from tunewell.predict import Predictor

    run, output = Path(run), Path(output)
    if int8 and to != "onnx":
        raise ModelError("`int8` goes with ONNX only", where=f"--to {to}", expected="--to onnx --int8")
    if weights is not None and to != "gguf":
        raise ModelError("`weights` goes with GGUF only", where=f"--to {to}", expected=f"--to gguf --weights {weights}")
    if output.exists() and not overwrite:
        raise RunFolderError("is there already", where=str(output), expected="a new folder", remedy="or --overwrite")
    if output.exists() and not _earlier(output, run):
        raise RunFolderError(
            "holds other things than an export, which `overwrite` would remove",
            where=str(output),
            expected="a new folder, or an earlier export of another (with export.json)",
        )
    predictor: Any = {"gguf": _decoder, "mlflow": _any}.get(to, Predictor.load)(run)
    if to not in WHOLE:
        predictor.need_head(str(run))
    folder = Path(predictor.source)
    try:
        output.absolute().parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.absolute().parent))
    except OSError as error:
        raise cannot_write(output, error) from error
    try:
        parity = written = None
        for name in SHIPPED if to not in WHOLE else ():
            if (folder / name).is_file():
                shutil.copy2(folder / name, work / name)
        if to == "gguf":
            written = _gguf(predictor, run, work, weights or "f16", echo)
        elif to == "mlflow":
            parity = _mlflow(predictor, run, work, echo)
        elif to == "onnx":
            parity = _onnx(predictor, run, work, int8, echo)
        elif to == "savedmodel":
            parity = _savedmodel(predictor, run, work, echo)
        else:
            parity = _folder(predictor, run, work, to)
        files = {p.relative_to(work).as_posix(): p.stat().st_size for p in sorted(work.rglob("*")) if p.is_file()}
        done = Exported(
            form=to, source=str(run), int8=int8, files=files, parity=parity, written=written,
            weights=(weights or "f16") if to == "gguf" else "",
        )  # fmt: skip
        done.write(work / "export.json")
        work.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        work.rename(output)
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return done


def _earlier(output: Path, run: Path) -> bool:
    """Whether a folder is an earlier export, or empty, and not what is exported."""
    if output.resolve() in (run.resolve(), *run.resolve().parents):
        return False
    return output.is_dir() and ((output / "export.json").is_file() or not any(output.iterdir()))


def _onnx(predictor: Any, run: Path, work: Path, int8: bool, echo: Callable[[str], None]) -> Parity:
    from tunewell.export.onnx import FILE, OnnxPredictor, write_int8, write_onnx
    from tunewell.extras import need

    need("export", "tunewell export --to onnx")
    echo("export: tracing the model")
    write_onnx(predictor, work / FILE)
    if int8:
        echo("export: weights in 8 bits")
        (work / FILE).rename(work / "fp32.onnx")
        write_int8(work / "fp32.onnx", work / FILE)
        (work / "fp32.onnx").unlink()
    echo("export: comparing with the source model")
    found = _compared(predictor, OnnxPredictor(work / FILE, predictor), run)
    if int8:
        _alike(found, run)
    else:
        _exact(found, run)
    _describe(predictor, work)
    write_whole(work / "README.md", _usage(predictor))
    return found


def _decoder(run: Path) -> Any:
    from tunewell.extras import need
    from tunewell.predict import load_predictor
    from tunewell.tasks.generation.writers import CausalWriter

    writer = load_predictor(run)
    if not isinstance(writer, CausalWriter):
        raise ModelError(
            "is no decoder that writes", where=str(run), expected="a run of text-generation or of translation by one"
        )
    need("gguf", "tunewell export --to gguf")
    return writer


def _any(run: Path) -> Any:
    """Whatever predicts: MLflow's folder is answered by tunewell itself."""
    from tunewell.export.mlflow import quiet, refuse
    from tunewell.extras import need
    from tunewell.predict import load_predictor

    need("mlflow", "tunewell export --to mlflow")
    quiet()
    refuse(run)
    return load_predictor(run)


def _mlflow(predictor: Any, run: Path, work: Path, echo: Callable[[str], None]) -> Parity:
    from tunewell.export.mlflow import readme, write_mlflow

    echo("export: writing a folder of MLflow, and comparing it with the source model")
    found = write_mlflow(predictor, run, work)
    write_whole(work / "README.md", readme(predictor))
    return found


def _gguf(writer: Any, run: Path, work: Path, weights: Weights, echo: Callable[[str], None]) -> Written:
    from tunewell.export import gguf, llamacpp

    gguf.refuse(writer.model.config, writer.tokenizer, str(run))
    echo("export: writing GGUF")
    gguf.write_gguf(writer.model, writer.tokenizer, work / gguf.FILE, weights=weights, name=run.absolute().name)
    echo("export: comparing with the source model in llama.cpp")
    found = llamacpp.compare(writer, work / gguf.FILE, run, weights=weights)
    write_whole(work / "README.md", GGUF_USAGE)
    return found


def _savedmodel(predictor: Any, run: Path, work: Path, echo: Callable[[str], None]) -> Parity:
    from tunewell.backends.tensorflow.engine import tensorflow
    from tunewell.backends.tensorflow.fits import refuse_model
    from tunewell.export.savedmodel import FOLDER, SavedModelPredictor, readme, write_savedmodel

    refuse_model(predictor.model.config, str(run))
    tensorflow("tunewell export --to savedmodel")
    echo("export: writing a SavedModel")
    write_savedmodel(predictor, work / FOLDER)
    echo("export: comparing with the source model")
    found = _compared(predictor, SavedModelPredictor(work / FOLDER, predictor), run)
    _exact(found, run)
    _describe(predictor, work)
    write_whole(work / "README.md", readme(predictor))
    return found


def _compared(predictor: Any, exported: Any, run: Path) -> Parity:
    """The model's own answers beside the export's, both before the run's calibration, which is no part of a model."""
    return compare(
        predictor.raw_scores, exported.raw_scores, run,
        pair=predictor.pair, classes=not predictor.spec.regression, several=predictor.spec.multi_label,
    )  # fmt: skip


def _alike(found: Parity, run: Path) -> None:
    """Hold 8 bits to the model's answers: labels to the same ones, scores to a small part of their spread."""
    if found.same is not None and not found.same >= ALIKE:
        part = f"{1 - found.same:.1%} of"
        raise ModelError(
            f"8 bits give other labels: {part} those given on {found.rows:,} rows differ"
            if found.several
            else f"8 bits give another answer on {part} {found.rows:,} rows",
            where=str(run),
            expected=f"at most {1 - ALIKE:.0%}",
            remedy="export without --int8",
        )
    if found.off is not None and not found.off <= SCORES_OFF:
        raise ModelError(
            f"8 bits give scores that are off by {found.off:.0%} of their spread on {found.rows:,} rows",
            where=str(run),
            expected=f"at most {SCORES_OFF:.0%} (root mean square, of the standard deviation of the model's scores)",
            remedy="export without --int8",
        )


def _exact(found: Parity, run: Path) -> None:
    if not found.largest <= EXACT:
        raise ModelError(
            f"the export differs from the model by up to {found.largest:.2g}",
            where=str(run),
            expected=f"at most {EXACT:g}",
            remedy="please report this architecture",
        )


def mapped(predictor: Any) -> bool:
    """Whether the run's calibration changes the model's own probabilities."""
    return predictor.calibrator is not None and predictor.calibrator.method != "none"


def _describe(predictor: Any, work: Path) -> None:
    """tunewell.json: what the outputs mean, and how a run's probabilities come from them."""
    about = predictor.spec.to_dict() | {"max_length": predictor.max_length}
    if mapped(predictor):
        about["calibrator"] = predictor.calibrator.model_dump(mode="json")
    write_whole(work / "tunewell.json", json.dumps(about, ensure_ascii=False, indent=1) + "\n")


def _folder(predictor: Any, run: Path, work: Path, to: Form) -> Parity:
    from tunewell.predict import Predictor

    predictor.model.save_pretrained(work)
    predictor.tokenizer.save_pretrained(work)
    card = Path(predictor.source) / "README.md"
    if to == "hub":
        if not card.is_file():
            raise RunFolderError(
                "has no model card", where=str(run), expected="a finished run", remedy=f"tunewell report {run}"
            )
        shutil.copy2(card, work / "README.md")
    again = Predictor.load(work)
    again.spec, again.max_length = predictor.spec, predictor.max_length
    found = _compared(predictor, again, run)
    if not found.largest <= EXACT:
        raise RuntimeError(f"{run}: the copy does not give the same answers ({found.largest:.2g})")
    return found


GGUF_USAGE = """# A decoder in GGUF

```bash
llama-cli -m model.gguf -p "Name three colours."
printf 'FROM ./model.gguf\\n' > Modelfile && ollama create tuned -f Modelfile && ollama run tuned
```

The chat template is in the file. `export.json` has the comparison with the source model.
"""


def _usage(predictor: Any) -> str:
    texts = "[text], [second text]" if predictor.pair else "[text]"
    return f"""# A text classifier in ONNX

```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
session = onnxruntime.InferenceSession("model.onnx")
batch = tokenizer({texts}, truncation=True, max_length={predictor.max_length}, padding=True, return_tensors="np")
logits = session.run(["logits"], {{i.name: batch[i.name].astype("int64") for i in session.get_inputs()}})[0]
```

`tunewell.json` has the labels in the order of the logits{CALIBRATED if mapped(predictor) else ""}. \
`export.json` has the comparison with the source model.
"""
