"""Bergamot: small, fast translation models with a recurrent decoder, as a model of the Transformers library.

`register` tells Transformers of them, so that `AutoModelForSeq2SeqLM.from_pretrained` reads their folders; tunewell
calls it before it loads any model, other programs once by themselves:

    from tunewell.models.bergamot import register
    register()
"""

from __future__ import annotations

from functools import cache


@cache
def register() -> None:
    """Make `model_type: bergamot` known to AutoConfig and AutoModelForSeq2SeqLM. A second call does nothing."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from tunewell.models.bergamot.config import BergamotConfig
    from tunewell.models.bergamot.model import BergamotForConditionalGeneration

    AutoConfig.register(BergamotConfig.model_type, BergamotConfig)
    AutoModelForSeq2SeqLM.register(BergamotConfig, BergamotForConditionalGeneration)
