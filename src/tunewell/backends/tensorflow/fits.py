"""What TensorFlow can tune here, told before anything heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.errors import ModelError, RecipeError

if TYPE_CHECKING:
    from tunewell.recipe import Recipe
    from tunewell.stages.job import Job

STRATEGIES = ("plain", "distill", "average", "lines")
TASKS = ("text-classification", "text-regression", "sentiment")
ROBERTA = ("roberta", "xlm-roberta", "camembert")
ENCODERS = ("bert", "electra", *ROBERTA, "distilbert")
DECODERS = ("gpt2", "llama", "mistral", "qwen2")
MODELS = (*ENCODERS, *DECODERS)
ROTARY = ("default", "linear", "llama3")  # rotary embeddings whose frequencies no length changes
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")
BACK = "framework: pytorch"


def mistakes(recipe: Recipe) -> list[str]:
    """What does not go with `framework: tensorflow` in a recipe, in sentences."""
    out = []
    if others := [s for s in recipe.strategies if s not in STRATEGIES]:
        out.append(
            f"`framework: tensorflow` tunes with {', '.join(STRATEGIES)}; {', '.join(f'`{s}`' for s in others)} "
            f"hooks into PyTorch's loop: take one of these, or `{BACK}`"
        )
    if recipe.task not in ("auto", *TASKS):
        out.append(f"`framework: tensorflow` learns classes and scores, not `task: {recipe.task}`: `{BACK}`")
    if recipe.monitor not in (None, "off"):
        out.append(f"`monitor: {recipe.monitor}` reads PyTorch models as they are tuned: leave it out, or `{BACK}`")
    if recipe.guard == "act":
        out.append(f"`guard: act` steers PyTorch's loop: leave it out, or `{BACK}`")
    if recipe.bf16:
        out.append("`framework: tensorflow` computes in fp32: leave `bf16` out")
    if recipe.optim != "adamw":
        out.append(f"`optim: {recipe.optim}` is for PyTorch: leave it out, or `{BACK}`")
    if recipe.attention_dropout is not None:
        out.append(f"`attention_dropout` sets PyTorch's layers: leave it out, or `{BACK}`")
    for key in ("auto_find_batch_size", "activation_checkpointing"):
        if getattr(recipe, key):
            out.append(f"`{key}` is for PyTorch's loop: leave it out, or `{BACK}`")
    if recipe.classify_by == "likelihood":
        out.append(f"`classify_by: likelihood` needs a decoder, which TensorFlow does not tune here: `{BACK}`")
    if trackers := [t for t in recipe.report_to if t != "none"]:
        out.append(f"`report_to: {', '.join(trackers)}` follows PyTorch's loop: leave it out, or `{BACK}`")
    return out


def preflight(job: Job) -> None:
    """Refuse what only the rows and the base model tell.

    Raises:
        RecipeError: another task. ModelError: another kind of model.
        TunewellError: TensorFlow is not installed.
    """
    from tunewell.extras import need

    if job.spec.name not in TASKS:
        raise RecipeError(
            f"`framework: tensorflow` learns classes and scores, not {job.spec.name}", where="framework", expected=BACK
        )
    need("tensorflow", "framework: tensorflow")
    refuse_model(job.encoder.model.config, job.recipe.model)


def refuse_model(config: Any, where: str = "model") -> None:
    """Make sure that a model's layers are those of model.py.

    Raises:
        ModelError: they are not.
    """
    kind = config.model_type
    if kind not in MODELS:
        raise ModelError(
            f"is a {kind} model, whose layers are not at hand in TensorFlow",
            where=where,
            expected=" or ".join(MODELS),
            remedy=f"`{BACK}`",
        )
    activation = next(
        getattr(config, n) for n in ("activation_function", "hidden_act", "activation") if hasattr(config, n)
    )
    if activation not in ACTIVATIONS:
        raise ModelError(
            f"has the activation {activation}, which is not at hand in TensorFlow",
            where=where,
            expected=" or ".join(ACTIVATIONS),
            remedy=f"`{BACK}`",
        )
    if kind in ENCODERS and getattr(config, "is_decoder", False):
        raise ModelError("is a decoder", where=where, expected="an encoder", remedy=f"`{BACK}`")
    if kind in DECODERS and (problem := _unlike(config)):
        raise ModelError(f"has {problem}, which is not at hand in TensorFlow", where=where, remedy=f"`{BACK}`")


def _unlike(config: Any) -> str:
    """In what a decoder differs from those of decoders.py; empty for nothing."""
    if config.model_type == "gpt2":
        if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx or config.add_cross_attention:
            return "attention of another kind than GPT-2's"
        return ""
    rotary = config.rope_parameters
    if rotary["rope_type"] not in ROTARY:
        return f"a rotary embedding of type {rotary['rope_type']}"
    if rotary.get("partial_rotary_factor", 1.0) != 1.0:
        return "a rotary embedding for a part of each head"
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    return "attention within a window" if windows or window else ""
