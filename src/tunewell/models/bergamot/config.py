"""The settings of a Bergamot translation model."""

from __future__ import annotations

from transformers import PreTrainedConfig


class BergamotConfig(PreTrainedConfig):
    """Transformer encoder, SSRU decoder, one matrix of embeddings for source, target and output.

    Attributes:
        d_model: width of all layers. The vocabulary's last entry is `pad_token_id`: padding, and what writing
            begins with, where Marian has a vector of zeros.
    """

    model_type = "bergamot"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    vocab_size: int = 32001
    d_model: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 2
    encoder_attention_heads: int = 8
    ffn_dim: int = 1536
    dropout: float = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    max_position_embeddings: int = 512
    use_cache: bool = True
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 32000
    eos_token_id: int | None = 0
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = 32000
