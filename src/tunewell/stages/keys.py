"""What each stage's result depends on, as fingerprints: a stage is repeated only when its key changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.augment.names import BACKTRANSLATE, MASKED
from tunewell.folder import file_hash, fingerprint
from tunewell.recipe import keys_of
from tunewell.strategies import AFTERWARDS, AUTO

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

TRAINING_KEYS = (
    "max_length", "classify_by", "general_text", "general_samples", "distill_weight", "learning_rate",
    "head_rate_factor", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "warmup_ratio",
    "lr_scheduler_type", "guard", "weight_decay", "attention_dropout", "max_grad_norm", "loss",
    "label_smoothing_factor", "focal_gamma",
    "class_weight", "early_stopping_patience", "evals_per_epoch", "bf16", "seed", "threads",
    *keys_of("answers"),
)  # fmt: skip
# keys that matter to one strategy only: to change one of another strategy is no reason to tune again
STRATEGY_KEYS = {
    "prompt": ("pattern", "verbaliser"),
    "fewshot": ("fewshot_steps", "fewshot_names"),
    "freeze": ("freeze",),
    "llrd": ("llrd_decay",),
    "l2sp": ("l2sp_weight",),
    "ewc": ("ewc_weight", "ewc_fisher"),
    "gpm": ("gpm_threshold",),
    "anchor": ("anchor_weight",),
    "mas": ("mas_weight",),
    "recadam": ("recadam_pull", "recadam_k", "recadam_t0"),
    "lora": ("lora_variant", "lora_rank", "lora_alpha", "lora_targets", "lora_rate_factor", "load_in_4bit"),
    "sdft": (
        "sdft_template", "sdft_min_similarity", "sdft_length_ratio", "sdft_max_new_tokens", "sdft_temperature",
    ),
    "ema": ("ema_decay",),
    "swa": ("swa_start",),
    "sam": ("sam_rho",),
    "mixup": ("mixup_alpha",),
}  # fmt: skip


@dataclass(frozen=True)
class Keys:
    """Fingerprints, each containing those that it builds on: data ⊂ tune ⊂ choice, and probe."""

    data: str  # rows and base model
    probe: str  # base model and suite
    tune: str  # all that decides the tuned weights
    choice: str  # all that decides the final weights


def keys_for(recipe: Recipe, rows: str, model_path: str, more: tuple[Any, ...] = ()) -> Keys:
    """The keys of a recipe, given the fingerprint of its rows and the place of its base model.

    Args:
        more: what tuning depends on beside them, see `Job.more`.
    """
    model = model_key(model_path, recipe.revision)
    data = fingerprint(rows, model, recipe.max_length)
    probe = fingerprint(
        model, recipe.probes, [_content(f) for f in recipe.probe_files], recipe.seed, recipe.classify_by
    )
    training = {k: getattr(recipe, k) for k in TRAINING_KEYS}
    # averaging happens after tuning, so that it can be added or changed without tuning again
    training["strategies"] = [s for s in recipe.strategies if s not in (*AFTERWARDS, "plain")]
    training |= {k: getattr(recipe, k) for s in recipe.strategies for k in STRATEGY_KEYS.get(s, ())}
    if recipe.monitor in ("stop", "rollback"):  # a run that is only watched gives the same weights
        training["monitor"] = (recipe.monitor, recipe.keep)
    if recipe.augment != ["none"]:
        training["augment"] = augment_key(recipe)
    if recipe.framework != "pytorch":
        training["framework"] = recipe.framework
    if recipe.fsdp:  # its checkpoints are in parts
        training["fsdp"] = True
    training["general"] = _content(recipe.general_text)
    tune = fingerprint(data, training, *more)
    budget: tuple[Any, ...] = (recipe.keep, recipe.keep_worst, recipe.average_alphas, recipe.lines_alphas)
    budget += (recipe.max_cost,) if AUTO in recipe.strategies else ()
    if recipe.unlabelled is not None:  # tuning without them does not depend on them, see stages/unlabelled.py
        asked = [getattr(recipe, k) for k in keys_of("unlabelled") if k != "unlabelled"]
        budget += (_content(recipe.unlabelled), *asked)
    return Keys(data, probe, tune, fingerprint(tune, probe, recipe.strategies, budget))


def augment_key(recipe: Recipe) -> list[Any]:
    """All that decides which rows `augment` makes, beside the data, the base model and the seed."""
    models = [recipe.augment_mlm] if MASKED in recipe.augment else []
    models += recipe.augment_translators if BACKTRANSLATE in recipe.augment else []
    return [
        *(recipe.augment, recipe.augment_factor, recipe.augment_share, recipe.augment_agree, recipe.augment_similar),
        [model_key(str(inner) if (inner := Path(name) / "model").is_dir() else name, None) for name in models],
    ]


def _content(path: str | None) -> str | None:
    return file_hash(path) if path and Path(path).exists() else path


def model_key(path: str, revision: str | None) -> str:
    """Names, sizes and times of the files of a folder, else id and revision."""
    folder = Path(path)
    if not folder.is_dir():
        return fingerprint("model", path, revision)
    files = sorted(p for p in folder.iterdir() if p.is_file())
    return fingerprint("model", [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
