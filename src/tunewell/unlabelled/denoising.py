"""TSDAE: a denoising auto-encoder of sentence embeddings (Wang, Reimers & Gurevych, 2021).

Of each text 60 % of the tokens are left out. The encoder reads the rest and is pooled into one vector s; a decoder that
sees nothing but s and the words before must write the whole text:

    L = −Σ_t log p(x_t | x_<t, s) / tokens of the batch,   s = pool(encoder(noisy x))

The decoder is the encoder's own weights, read with a causal mask: every parameter is tied but those that an encoder has
not, the attention from each word to s and the layer that names words. All that a text says must go through s. Once it
is learned the decoder is thrown away.

As in the authors' code the loss is a mean over the tokens of a batch. Where we differ: s is the mean over tokens, which
is what tunewell's embeddings are (the paper takes the first token; it found the two alike); tokens are left out where
the authors' code leaves out words; special tokens stay.

Shapes: B texts, T tokens of the shortened text, U tokens of the whole text less one, H size of an embedding, V entries
of the vocabulary.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tunewell.errors import ModelError

if TYPE_CHECKING:
    from tunewell.unlabelled.pretraining import Reading

DELETED = 0.6  # share of a text's tokens that is left out
EXPECTED = "an encoder whose architecture can attend to another text, such as BERT, RoBERTa, XLM-R or ELECTRA"
REMEDY = "take `unlabelled_pretraining: simcse`, or leave it out"


def delete_tokens(special: np.ndarray, rng: np.random.Generator, share: float = DELETED) -> np.ndarray:
    """(T,) booleans: which tokens stay. Special ones do, and at least one other.

    Args:
        special: (T,) booleans. share: of the other tokens, each left out with this probability.
    """
    stays = (rng.random(len(special)) > share) | special
    others = np.flatnonzero(~special)
    if len(others) and not stays[others].any():
        stays[rng.choice(others)] = True
    return stays


def tsdae_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) what each text adds to the loss, in nats; their mean is the mean over all tokens of the batch.

    Args:
        logits: (B, U, V). labels: (B, U) the token that comes next, −100 where none does.
    """
    from torch.nn import functional

    nats = functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return nats.sum(1) * len(nats) / (labels != -100).sum().clamp(min=1)


class Denoiser(nn.Module):
    """An encoder and the decoder that its weights make; a checkpoint holds each weight once.

    Attributes:
        encoder: a base model, what is pretrained. decoder: a causal model with attention to another text, tied to it.

    Raises:
        ModelError: the decoder lacks a weight that the encoder has.
    """

    base_model_prefix = "encoder"
    accepts_loss_kwargs = False
    _keys_to_ignore_on_save = None

    def __init__(self, encoder: Any, decoder: Any) -> None:
        super().__init__()
        tie(encoder, decoder)
        self.encoder, self.decoder, self.config = encoder, decoder, encoder.config

    @property
    def base_model(self) -> Any:
        return self.encoder

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    def get_input_embeddings(self) -> Any:
        return self.encoder.get_input_embeddings()

    def forward(self, input_ids: Any, attention_mask: Any, decoder_input_ids: Any, **more: Any) -> Any:
        """`logits` (B, U, V) of the next token.

        Args:
            input_ids, attention_mask: (B, T) of the shortened texts. decoder_input_ids: (B, U) of the whole ones.
            more: what else the encoder's tokenizer gives.
        """
        from tunewell.models.embed import mean_pool

        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state
        pooled = mean_pool(hidden, attention_mask).unsqueeze(1)  # (B, 1, H)
        made = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=torch.ones_like(decoder_input_ids),  # padding is on the right, where no word looks
            encoder_hidden_states=pooled,
            encoder_attention_mask=attention_mask.new_ones(len(pooled), 1),
            use_cache=False,
        )
        return SimpleNamespace(logits=made.logits)

    def _places(self) -> dict[str, str]:
        """Name of a parameter -> the first name of the same one."""
        first: dict[int, str] = {}
        return {n: first.setdefault(id(p), n) for n, p in self.named_parameters(remove_duplicate=False)}

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        places = self._places()
        found = super().state_dict(*arguments, **options)
        return {n: t for n, t in found.items() if places.get(n, n) == n}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        whole = {n: state_dict[first] for n, first in self._places().items() if first in state_dict}
        return super().load_state_dict({**state_dict, **whole}, strict=strict, assign=assign)


def tie(encoder: Any, decoder: Any) -> None:
    """Put an encoder's parameters in the place of those that a decoder has under the same names, its output layer's too
    where that is its word embeddings.

    Raises:
        ModelError: it lacks one; a pooler's do not count.
    """
    body, own = decoder.base_model, dict(encoder.named_parameters())
    theirs = dict(body.named_parameters())
    new = {}
    for name, parameter in own.items():
        if name in theirs and theirs[name].shape == parameter.shape:
            new[id(theirs[name])] = parameter
        elif "pooler" not in name:
            raise ModelError(
                f"cannot be its own decoder: that has no `{name}`",
                where=encoder.config.model_type,
                expected=EXPECTED,
                remedy=REMEDY,
            )
    for module in decoder.modules():
        for leaf, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in new:
                module._parameters[leaf] = new[id(parameter)]


def decoder_config(config: Any) -> Any:
    """A copy of an encoder's config that makes a decoder of it.

    Raises:
        ModelError: its architecture has no attention to another text.
    """
    import copy

    from transformers import AutoModelForCausalLM

    made = copy.deepcopy(config)
    made.is_decoder, made.add_cross_attention, made.use_cache = True, True, False
    found = False
    if type(config) in AutoModelForCausalLM._model_mapping:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(made)
        found = any("crossattention" in name for name, _ in model.named_modules())
    if not found:
        raise ModelError(
            "cannot be pretrained by TSDAE: its architecture has no attention to another text",
            where=f"{config.model_type} model",
            expected=EXPECTED,
            remedy=REMEDY,
        )
    return made


class Shortened:
    """Collates texts for TSDAE; what is left out of a text is drawn anew in each pass, see `Reading.rng`: a resumed run
    goes on as an uninterrupted one would.
    """

    def __init__(self, collate: Any, tokenizer: Any, seed: int, reading: Reading) -> None:
        self.collate, self.seed, self.reading = collate, seed, reading
        self.special, self.padding = np.array(sorted(tokenizer.all_special_ids)), tokenizer.pad_token_id or 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        noisy, whole = [], []
        for row in rows:
            rng = self.reading.rng(self.seed, int(row["place"]))
            ids = np.asarray(row["input_ids"])
            stays = delete_tokens(np.isin(ids, self.special), rng)
            noisy.append({k: np.asarray(v)[stays].tolist() for k, v in row.items() if k != "place"})
            whole.append(torch.from_numpy(ids))
        batch = self.collate(noisy)
        most = max(len(ids) for ids in whole) - 1
        inputs = torch.full((len(whole), most), self.padding)
        labels = torch.full((len(whole), most), -100)
        for i, tokens in enumerate(whole):
            inputs[i, : len(tokens) - 1], labels[i, : len(tokens) - 1] = tokens[:-1], tokens[1:]
        return {**batch, "decoder_input_ids": inputs, "labels": labels}
