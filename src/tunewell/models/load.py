"""Loading pretrained models: hub id, local folder or packaged asset.

Weights are read from safetensors only, never from pickle; code that comes with a model runs only
when the user says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewell.assets import MARKER
from tunewell.errors import ModelError, nearest
from tunewell.models.bounds import check_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewell.tasks import TaskSpec

REACH_SECONDS = 5.0
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "model.ckpt.index", "flax_model.msgpack")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


@dataclass(frozen=True)
class Encoder:
    """A base model ready to embed texts; `drawn` names weights that its files lack (a pooler's)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    path: str
    drawn: frozenset[str] = frozenset()


def locate(name: str) -> str:
    """The folder of an asset or local model, checked; a hub id comes back as it is.

    Raises:
        ModelError: a local folder lacks its config, tokenizer or safetensors weights.
        AssetError: the asset cannot be fetched.
    """
    from tunewell import assets

    if not name.strip():
        raise ModelError(
            "no model is named",
            where="model",
            expected="an asset, a folder or a hub id",
            remedy="`tunewell models` lists what is at hand",
        )
    asset = assets.find(name, kind="model")
    if asset is not None and not Path(name).is_dir():
        return str(converted(assets.fetch(asset.name)))
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = converted(folder)
        _check_folder(folder)
        return str(folder)
    if folder.is_file():
        raise ModelError(
            "is a file, not a model",
            where=name,
            expected="a folder with config.json, model.safetensors and a tokenizer, an asset, or a hub id",
        )
    looks_local = name.startswith((".", "/", "~", "\\")) or name.count("/") > 1
    if looks_local:
        raise ModelError(
            "no such model folder",
            where=name,
            expected="a folder with config.json, model.safetensors and a tokenizer, an asset, or a hub id",
            remedy="`tunewell models` lists what is at hand",
        )
    return name


def converted(folder: Path) -> Path:
    """The folder that Transformers reads: GGUF and Bergamot files are converted once."""
    from tunewell.models import gguf
    from tunewell.models.bergamot import convert

    if (folder / "config.json").is_file():
        return folder
    if convert.is_bergamot(folder):
        return convert.unpacked(folder)
    return gguf.unpacked(folder) if (folder / MARKER).is_file() else folder


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        nested = folder / "model" / "config.json"
        raise ModelError(
            "not a model folder: config.json is missing",
            where=str(folder),
            expected="a folder written by save_pretrained",
            remedy=f"did you mean {folder / 'model'}?" if nested.is_file() else "",
        )
    if not any((folder / n).is_file() for n in WEIGHTS):
        if any((folder / n).is_file() for n in PICKLED):
            raise ModelError(
                "holds its weights as pickle or in another framework's format, which tunewell does not open",
                where=str(folder),
                expected="model.safetensors",
                remedy="convert it on a machine you trust: AutoModel.from_pretrained(folder)"
                ".save_pretrained(new_folder), which writes safetensors",
            )
        raise ModelError("has no weights", where=str(folder), expected="model.safetensors")
    if not any((folder / n).is_file() for n in TOKENIZERS):
        raise ModelError(
            "has no tokenizer",
            where=str(folder),
            expected=" or ".join(TOKENIZERS[:3]),
            remedy="save it beside the model: tokenizer.save_pretrained(folder)",
        )
    check_files(folder, str(folder))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences Transformers' loading report (a new head is no news to us) and its progress bar."""
    from transformers.utils import logging as hf_logging

    before, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    if not os.environ.get("TUNEWELL_DEBUG"):
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(level)
        hf_logging.set_verbosity(before)
        if bars:
            hf_logging.enable_progress_bar()


@cache
def _reachable() -> bool:
    """Whether the hub answers within seconds; its own client would try again for most of a minute."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # a proxy knows more than we do
    where = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((where.hostname or "", where.port or 443), timeout=REACH_SECONDS):
            return True
    except OSError:
        return False


def load_part(loader: Any, name: str, path: str, what: str, **options: Any) -> Any:
    """Call a `from_pretrained`, turning its many complaints into one ModelError."""
    import huggingface_hub.errors as hub_errors

    from tunewell.data.hub import offline
    from tunewell.models.bergamot import register

    register()
    with quietly():
        try:
            if Path(path).is_dir() or _reachable():
                return loader(path, **options)
            with offline():
                return loader(path, **options)
        except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError) as error:
            raise ModelError(
                "not found on the Hugging Face Hub",
                where=name,
                expected="an existing id or revision",
                remedy="check the spelling; for a private model run `hf auth login`",
            ) from error
        except (OSError, ConnectionError, hub_errors.HfHubHTTPError) as error:
            if Path(path).is_dir():
                raise ModelError(
                    f"cannot load its {what}: {_first_line(error)}",
                    where=name,
                    expected="a folder written by save_pretrained, with safetensors weights",
                ) from error
            raise ModelError(
                f"cannot be loaded from the Hugging Face Hub: {_first_line(error)}",
                where=name,
                expected="a hub id that can be reached or lies in the local cache, an asset or a folder",
                remedy=_hub_remedy(name),
            ) from error
        except BaseException as error:  # a damaged file raises whatever its parser raises, a panic in Rust too
            parsed = type(error).__name__ in ("SafetensorError", "PanicException") or isinstance(
                error, (ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError)
            )
            if parsed or (isinstance(error, Exception) and Path(path).is_dir()):
                own_code = "trust_remote_code" in str(error)
                raise ModelError(
                    f"cannot load its {what}: {_first_line(error)}",
                    where=name,
                    expected="a model of the Transformers library with safetensors weights",
                    remedy="`trust_remote_code: true` runs the code that comes with it, if you trust its source"
                    if own_code
                    else "",
                ) from error
            raise


def _hub_remedy(name: str) -> str:
    from tunewell import assets

    hint = nearest(name, [*assets.ASSETS])
    return "; ".join(filter(None, [hint, "`tunewell models` lists models that need no hub"]))


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:300]


def load_tokenizer(name: str, path: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of a model, with a finite `model_max_length`."""
    from transformers import AutoTokenizer

    tokenizer = load_part(
        AutoTokenizer.from_pretrained, name, path, "tokenizer", revision=revision, trust_remote_code=trust_remote_code
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def window(model: Any, tokenizer: Any) -> int:
    """The longest input in tokens that the model can take."""
    limits = [n for n in (getattr(tokenizer, "model_max_length", None),) if n and n < 10**6]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        # RoBERTa-like models number positions from pad_token_id + 1
        offset = (model.config.pad_token_id or 0) + 1 if model.config.model_type in ROBERTA_LIKE else 0
        limits.append(positions - offset)
    return min(limits) if limits else 512


ROBERTA_LIKE = {"roberta", "xlm-roberta", "camembert", "longformer", "xlm-roberta-xl", "mpnet", "data2vec-text"}


def load_encoder(
    name: str, revision: str | None = None, trust_remote_code: bool = False, *, decoders: bool = False
) -> Encoder:
    """Load a base encoder (no head) in fp32, in evaluation mode.

    Args:
        name: asset, local folder or hub id. decoders: a decoder will do too.

    Raises:
        ModelError, AssetError: with what was found and what to do.
    """
    import torch
    from transformers import AutoModel

    path = locate(name)
    model, found = load_part(
        AutoModel.from_pretrained,
        name,
        path,
        "weights",
        revision=revision,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        dtype=torch.float32,
        output_loading_info=True,
    )
    tokenizer = load_tokenizer(name, path, revision, trust_remote_code)
    if not _is_encoder(model) and not (decoders and _is_decoder(model)):
        raise ModelError(
            f"is not an encoder but a {model.config.model_type} model",
            where=name,
            expected="a BERT-like encoder for classification and regression",
        )
    check_weights(model, [key for key in found["missing_keys"] if not key.startswith("pooler")], name)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"tokenizer has {len(tokenizer)} entries but the model only "
            f"{model.get_input_embeddings().num_embeddings} embeddings",
            where=name,
            expected="the tokenizer that belongs to the model",
        )
    return Encoder(model.eval(), tokenizer, name, path, frozenset(found["missing_keys"]))


def load_classifier(
    name: str, spec: TaskSpec, *, seed: int, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The base model under a new head for `spec`, drawn with `seed`, in fp32.

    A head that the base model brings is kept when its labels are the same, and replaced otherwise. The names
    of parameters that were drawn are in the model's `drawn_parameters`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    from tunewell.models.pooled import KEY as POOLED
    from tunewell.models.prompt import KEY as PROMPTED

    path = locate(name)
    set_seed(seed)
    labels = (
        {}
        if spec.regression
        else {"id2label": dict(enumerate(spec.labels)), "label2id": {label: i for i, label in enumerate(spec.labels)}}
    )
    model, found = load_part(
        AutoModelForSequenceClassification.from_pretrained,
        name,
        path,
        "weights",
        revision=revision,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        dtype=torch.float32,
        output_loading_info=True,
        num_labels=spec.outputs,
        problem_type=spec.problem_type,
        ignore_mismatched_sizes=True,
        **labels,
    )
    # These heads take **kwargs and ignore num_items_in_batch, which makes Trainer scale wrongly (transformers#47688).
    model.accepts_loss_kwargs = False
    if model.config.pad_token_id is None:  # decoders look for the last token that is no padding
        model.config.pad_token_id = load_tokenizer(name, path, revision, trust_remote_code).pad_token_id
    # Old files (bert-base-uncased) call LayerNorm's weights gamma and beta. Transformers renames them back when it
    # saves, and Trainer then finds no such weights in its own checkpoints: neither the best nor a resumed one is whole.
    model._weight_conversions = []
    for key in (POOLED, PROMPTED):  # a base model that answered in another way; under the new head it does not
        if hasattr(model.config, key):
            delattr(model.config, key)
    # what was drawn learns faster than what is known, see train/rates.py
    model.drawn_parameters = frozenset([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    return model


def _is_encoder(model: Any) -> bool:
    """Whether every token sees all others: no decoder, no encoder with a decoder."""
    from transformers.models.auto import modeling_auto as auto

    kind = model.config.model_type
    decoder = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    mixed = getattr(model.config, "is_encoder_decoder", False) or getattr(model.config, "is_decoder", False)
    return hasattr(model, "get_input_embeddings") and not (decoder or mixed)


def _is_decoder(model: Any) -> bool:
    """Whether every token sees those before it alone, and nothing else."""
    from transformers.models.auto import modeling_auto as auto

    mixed = getattr(model.config, "is_encoder_decoder", False)
    return model.config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not mixed


def check_weights(model: Any, missing: list[str], name: str) -> None:
    """Refuse what Transformers only warns of: weights that are not in the file are drawn at random."""
    if missing:
        some = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelError(
            f"lacks {len(missing)} of the weights that its config.json asks for: {some}",
            where=name,
            expected="config.json and model.safetensors of the same model",
        )
    for key, weights in model.named_parameters():
        if not weights.isfinite().all():
            raise ModelError(
                f"its weights are not finite numbers: {key}",
                where=name,
                expected="a model whose training did not diverge",
                remedy="download or save the model again",
            )


def read_saved(kind: Any, path: str | Path) -> tuple[Any, list[str], str]:
    """A saved model in fp32, the names of weights that its files lack, and its folder.

    Args:
        kind: an auto class of Transformers.

    Raises:
        ModelError: no such folder, or files that cannot be read.
    """
    import torch

    folder = locate(str(path))
    model, found = load_part(
        kind.from_pretrained,
        str(path),
        folder,
        "weights",
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    return model, sorted(found["missing_keys"]), folder


def load_tuned(path: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A tuned model folder, as plain Transformers reads it.

    Raises:
        ModelError: no such folder, or a base model, whose head would be drawn at random.
    """
    from transformers import AutoModelForSequenceClassification

    from tunewell.models.pooled import is_pooled, load_pooled
    from tunewell.models.prompt import is_prompted, load_prompted

    if is_pooled(path):
        return load_pooled(locate(str(path))), load_tokenizer(str(path), str(path))
    if is_prompted(path):
        return load_prompted(str(path), locate(str(path))).eval(), load_tokenizer(str(path), str(path))
    model, missing, folder = read_saved(AutoModelForSequenceClassification, path)
    if any(key.startswith(("classifier", "score", "pre_classifier", "head")) for key in missing):
        raise ModelError(
            "has no classification head: it is a base model",
            where=str(path),
            expected="a run folder, or a model tuned for classification or regression",
            remedy=f"tune it first: tunewell run --model {path} --train DATA",
        )
    check_weights(model, missing, str(path))
    return model.eval(), load_tokenizer(str(path), folder)
