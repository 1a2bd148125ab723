"""Which kind of model writes the answers, and loading it: decoder, encoder-decoder, or an encoder made into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunewell.errors import ModelError

if TYPE_CHECKING:
    from tunewell.recipe import Recipe

WRITES = ("LMHeadModel", "ForCausalLM", "ForConditionalGeneration", "MTModel", "EncoderDecoderModel")
Kind = Literal["decoder", "encoder-decoder", "encoder"]


def config_of(recipe: Recipe, path: str) -> Any:
    """The model's config."""
    from transformers import AutoConfig

    from tunewell.models.load import load_part

    return load_part(
        AutoConfig.from_pretrained,
        recipe.model,
        path,
        "config",
        revision=recipe.revision,
        trust_remote_code=recipe.trust_remote_code,
    )


def kind_of(config: Any) -> Kind:
    """What a config describes."""
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    name = config.model_type
    decoder = name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and name not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "decoder" if decoder or getattr(config, "is_decoder", False) else "encoder"


def window_of(config: Any, tokenizer: Any) -> int:
    """The longest input in tokens that a model takes, 512 where it names no limit."""
    part = getattr(config, "encoder", config)
    limits = [getattr(part, name, None) for name in ("max_position_embeddings", "n_positions")]
    limits.append(tokenizer.model_max_length if tokenizer.model_max_length < 10**6 else None)
    return min((int(n) for n in limits if n), default=512)


def auto_class(kind: Kind) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForCausalLM if kind == "decoder" else AutoModelForSeq2SeqLM


def load_base(recipe: Recipe, path: str, kind: Kind, tokenizer: Any) -> Any:
    """The base model, fp32, in evaluation mode; an encoder becomes both halves of an encoder-decoder.

    The warm start (Rothe et al., 2020) copies the encoder's weights into encoder and decoder; attention from
    decoder to encoder is new and drawn with the seed.
    """
    from tunewell.models import heads

    if kind != "encoder":
        model = heads.load_with_head(
            auto_class(kind),
            recipe.model,
            seed=recipe.seed,
            revision=recipe.revision,
            trust_remote_code=recipe.trust_remote_code,
        )
        _check_head(model, recipe.model, path)
        return model.eval()
    from transformers import EncoderDecoderModel, set_seed

    from tunewell.models.load import quietly

    set_seed(recipe.seed)
    with quietly():
        model = EncoderDecoderModel.from_encoder_decoder_pretrained(path, path)
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = start, end, tokenizer.pad_token_id
    return heads.prepared(model.float()).eval()


def _check_head(model: Any, name: str, path: str) -> None:
    """Refuse a folder without the head that writes: Transformers would draw it at random."""
    from tunewell.models.heads import architectures

    known = architectures(path) if Path(path).is_dir() else []
    if known and not any(a.endswith(WRITES) for a in known):
        raise ModelError(
            f"holds a {known[0]}, which writes no text",
            where=name,
            expected="a decoder or an encoder-decoder with its language-model head",
        )


def kind_at(path: str) -> Kind:
    """What a local folder holds; a model of the hub is asked for its config."""
    from transformers import AutoConfig

    from tunewell.models.load import load_part

    return kind_of(load_part(AutoConfig.from_pretrained, path, path, "config"))


def load_decoder(name: str) -> tuple[Any, Any]:
    """A decoder and its tokenizer, to be measured.

    Raises:
        ModelError: another kind of model.
    """
    from tunewell.models.heads import load_saved
    from tunewell.models.load import locate

    if kind_at(locate(name)) != "decoder":
        raise ModelError("is not a decoder like the first model", where=name, expected="two models of one kind")
    return load_saved(auto_class("decoder"), name, "a language-model head")
