"""Optional packages: a missing one is answered with the line that installs it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tunewell.errors import TunewellError

# extra of pyproject.toml -> modules that it brings
EXTRAS = {
    "data": ("openpyxl", "sqlalchemy"),
    "eval": ("lm_eval",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "generate": ("babel", "gguf", "sacrebleu", "sentencepiece"),
    "gguf": ("gguf", "xllamacpp"),
    "mlflow": ("mlflow", "alembic", "sqlalchemy"),
    "optim": ("schedulefree", "prodigyopt"),
    "quantize": ("bitsandbytes",),
    "ray": ("ray",),
    "serve": ("fastapi", "uvicorn", "prometheus_client"),
    "tensorflow": ("tensorflow",),
    "track": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def need(extra: str, where: str, *, modules: Sequence[str] | None = None) -> None:
    """Make sure that an extra is installed.

    Args:
        where: the command or key that asks for it. modules: those of the extra that are needed here, else all.

    Raises:
        TunewellError: with the install line.
    """
    missing = [module for module in modules or EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise TunewellError(
            f"{', '.join(missing).replace('_', '-')} {'is' if len(missing) == 1 else 'are'} not installed",
            where=where,
            expected=f"the optional packages of `{extra}`",
            remedy=f"pip install 'tunewell[{extra}]'",
        )
