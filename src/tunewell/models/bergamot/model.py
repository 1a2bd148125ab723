"""Bergamot's small translation models in PyTorch: a Transformer encoder and a recurrent decoder.

Kim et al. (2019), "From Research to Production and Back: Ludicrously Fast Neural Machine Translation": the decoder's
self-attention is a Simpler Simple Recurrent Unit (SSRU), whose whole memory is one vector a layer, so that writing a
token costs the same however long the text is. Normalisation follows each sublayer (post-norm). The numbers agree
with Marian's; weights are fp32, not 8-bit.

Shapes: B batch, S tokens of the source, T tokens of the target, D width, H heads, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from tunewell.models.bergamot.config import BergamotConfig

NEVER = -1e4  # logit of the padding token


class BergamotCache:
    """What the decoder remembers between two tokens.

    Attributes:
        seen: tokens read. states: (B, D) of each layer. memory: keys and values (B, H, S, D / H) of each layer's
            attention to the source, computed once.
    """

    def __init__(self, layers: int) -> None:
        self.seen = 0
        self.states: list[Tensor | None] = [None] * layers
        self.memory: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search goes on with these rows; sources stay, since beams change places within a source only."""
        self.states = [None if s is None else s.index_select(0, beam_idx.to(s.device)) for s in self.states]


def positions(first: int, length: int, width: int, device: Any = None) -> Tensor:
    """Sinusoids (Vaswani et al., 2017) as Marian lays them out: sines in the first half, cosines in the second.

    >>> positions(1, 1, 4).mul(1e4).round().tolist()
    [[8415.0, 1.0, 5403.0, 10000.0]]
    """
    half = width // 2
    scale = math.log(10_000) / max(half - 1, 1)
    rates = torch.exp(torch.arange(half, device=device, dtype=torch.float32) * -scale)
    angles = torch.arange(first, first + length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Attention(nn.Module):
    """Multi-head attention with scaled dot products."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D / H) of a source (B, S, D)."""
        return self._split(self.k_proj(source)), self._split(self.v_proj(source))

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """x (B, T, D), mask (B, 1, 1, S) true where the source has a token -> (B, T, D)."""
        dropout = self.dropout if self.training else 0.0
        query = self._split(self.q_proj(x))
        out = functional.scaled_dot_product_attention(query, *memory, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two layers with ReLU between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.relu(self.fc1(x)))


class SSRU(nn.Module):
    """f_t = σ(W_f x_t + b_f), c_t = f_t ∘ c_{t-1} + (1 - f_t) ∘ W x_t, output ReLU(c_t); c before the first is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, width, bias=False)
        self.forget = nn.Linear(width, width)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, T, D) and the state (B, D) before it -> outputs (B, T, D) and the state after it."""
        new, keep = self.input(x), torch.sigmoid(self.forget(x))
        new = (1 - keep) * new
        state = torch.zeros_like(new[:, 0]) if state is None else state
        states = []
        for t in range(x.shape[1]):
            state = keep[:, t] * state + new[:, t]
            states.append(state)
        return functional.relu(torch.stack(states, dim=1)), state


class EncoderLayer(nn.Module):
    def __init__(self, config: BergamotConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads, config.dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.ffn = FeedForward(config.d_model, config.ffn_dim)
        self.ffn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(x, self.self_attn.keys(x), mask)))
        return self.ffn_layer_norm(x + self.dropout(self.ffn(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: BergamotConfig) -> None:
        super().__init__()
        self.rnn = SSRU(config.d_model)
        self.rnn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.encoder_attn = Attention(config.d_model, config.encoder_attention_heads, config.dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.ffn = FeedForward(config.d_model, config.ffn_dim)
        self.ffn_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, state: Tensor | None, memory: tuple[Tensor, Tensor], mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        recalled, state = self.rnn(x, state)
        x = self.rnn_layer_norm(x + self.dropout(recalled))
        x = self.encoder_attn_layer_norm(x + self.dropout(self.encoder_attn(x, memory, mask)))
        return self.ffn_layer_norm(x + self.dropout(self.ffn(x))), state


class BergamotPreTrainedModel(PreTrainedModel):
    config_class = BergamotConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]  # noqa: RUF012
    _supports_sdpa = True


def _embedded(table: nn.Embedding, ids: Tensor, first: int) -> Tensor:
    """(B, T) ids -> (B, T, D), scaled by √D, with positions from `first` on."""
    width = table.embedding_dim
    found = table(ids) * math.sqrt(width)
    return found + positions(first, ids.shape[1], width, ids.device).to(found.dtype)


class BergamotEncoder(BergamotPreTrainedModel):
    """The encoder; its embeddings are the model's."""

    def __init__(self, config: BergamotConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.encoder_layers)])
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        self.embed_tokens = value

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutput:
        x = self.dropout(_embedded(self.embed_tokens, input_ids, 0))
        mask = _mask(attention_mask)
        for layer in self.layers:
            x = layer(x, mask)
        return BaseModelOutput(last_hidden_state=x)


def _mask(attention_mask: Tensor | None) -> Tensor | None:
    return None if attention_mask is None else attention_mask.bool()[:, None, None]


class BergamotForConditionalGeneration(BergamotPreTrainedModel, GenerationMixin):
    """The whole model. Targets are padded at the end; `decoder_attention_mask` is not needed and not looked at."""

    _tied_weights_keys = {"lm_head.weight": "encoder.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: BergamotConfig) -> None:
        super().__init__(config)
        self.encoder = BergamotEncoder(config)
        self.decoder_layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.decoder_layers)])
        self.dropout = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the first step makes a BergamotCache

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        self.encoder.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, T) moved one place to the right, behind the token that writing begins with."""
        start = torch.full_like(labels[:, :1], int(self.config.decoder_start_token_id))
        moved = torch.cat([start, labels[:, :-1]], dim=1)
        return moved.masked_fill(moved == -100, int(self.config.pad_token_id))

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, past_key_values: Any = None, **more: Any
    ) -> dict[str, Any]:
        seen = past_key_values.seen if past_key_values is not None else 0
        return {
            "decoder_input_ids": input_ids[:, seen:],
            "past_key_values": past_key_values,
            **{k: more.get(k) for k in ("encoder_outputs", "attention_mask", "use_cache")},
        }

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,  # a BergamotCache
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Logits (B, T, V) of the next target tokens; with labels (B, T; -100 where none) also the mean loss."""
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("decoder_input_ids or labels are needed")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        source, mask = encoder_outputs[0], _mask(attention_mask)
        caches = bool(use_cache) and labels is None
        cache: Any = past_key_values
        if cache is None and caches:
            cache = BergamotCache(len(self.decoder_layers))
        first = cache.seen if cache is not None else 0
        x = self.dropout(_embedded(self.encoder.embed_tokens, decoder_input_ids, first))
        layer: Any
        for i, layer in enumerate(self.decoder_layers):
            memory = cache.memory[i] if cache is not None else None
            if memory is None:
                memory = layer.encoder_attn.keys(source)
            x, state = layer(x, cache.states[i] if cache is not None else None, memory, mask)
            if cache is not None:
                cache.states[i], cache.memory[i] = state, memory
        if cache is not None:
            cache.seen += decoder_input_ids.shape[1]
        logits = self.lm_head(x)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        return Seq2SeqLMOutput(loss=loss, logits=logits, past_key_values=cache, encoder_last_hidden_state=source)
