"""Small random checkpoints of every family, made and judged by transformers itself.

`write(name, folder)` saves one in the hub's layout, without a tokenizer; `reference(folder)` reads
it back as transformers does. Weights are scaled so that the next token depends on the source, the
position and the target: with the usual initialisation every model would repeat one token.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from model.building import build
from model.checkpoint import Checkpoint

VOCABULARY = 96
_SHARP = ("q_proj.weight", "k_proj.weight", "Attention.q.weight", "Attention.k.weight")
_LAST_NORMS = (
    "decoder.layer_norm.weight",
    "decoder.final_layer_norm.weight",
    "decoder.layers.2.final_layer_norm.weight",
)
_TABLES = ("shared", "lm_head", "model.shared", "model.encoder.embed", "model.decoder.embed")
_SHAPES: dict[str, Any] = {  # heads of 16 and 32: narrower ones give other bits at other lengths
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 128,
}
_T5_SHAPES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 48,
    "d_kv": 16,  # not width / heads
    "d_ff": 80,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 40,
    "decoder_start_token_id": 0,
}
_UNTIED = {"tie_word_embeddings": False}


def marian(**changes: Any) -> Any:
    """Post-norm, sinusoids, one table for everything, a bias on the logits."""
    tokens = {"pad_token_id": 95, "decoder_start_token_id": 95, "eos_token_id": 0}
    more = {"activation_function": "swish", "scale_embedding": True, "forced_eos_token_id": 0}
    model = MarianMTModel(MarianConfig(**_SHAPES | tokens | more | changes))
    model.generation_config.bad_words_ids = [[95]]
    return model


def marian_separate(**changes: Any) -> Any:
    """Two vocabularies of different size, whose target table is also the output's."""
    tokens = {"pad_token_id": 79, "decoder_start_token_id": 79, "eos_token_id": 0}
    more = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 80}
    more |= {"scale_embedding": True}
    return MarianMTModel(MarianConfig(**_SHAPES | tokens | more | changes))


def marian_untied(**changes: Any) -> Any:
    """Two vocabularies and a third table for the output."""
    tokens = {"pad_token_id": 79, "decoder_start_token_id": 79, "eos_token_id": 0}
    more = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 80}
    more |= {"scale_embedding": True}
    return MarianMTModel(
        MarianConfig(**_SHAPES | tokens | more | {"tie_word_embeddings": False} | changes)
    )


def m2m100(**changes: Any) -> Any:
    """Pre-norm, tensor2tensor sinusoids counted from the padding token's."""
    return M2M100ForConditionalGeneration(M2M100Config(**_SHAPES | changes))


def nllb(**changes: Any) -> Any:
    """As M2M100, with NLLB's forced language token; its file is sharded."""
    model = M2M100ForConditionalGeneration(
        M2M100Config(**_SHAPES | {"scale_embedding": False} | changes)
    )
    model.generation_config.max_length = 60
    return model


def mbart(**changes: Any) -> Any:
    """Pre-norm with norms of the embeddings and of the stacks, learned positions; a bf16 file."""
    more = {"scale_embedding": True, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
    return MBartForConditionalGeneration(MBartConfig(**_SHAPES | more | changes))


def mbart50(**changes: Any) -> Any:
    """As mBART-25; the language token is forced first and the start is </s>."""
    more = {"decoder_start_token_id": 2, "forced_eos_token_id": 2, "activation_function": "relu"}
    model = MBartForConditionalGeneration(MBartConfig(**_SHAPES | more | changes))
    model.generation_config.forced_bos_token_id = 90
    return model


def bart(**changes: Any) -> Any:
    """Post-norm with a norm of the embeddings, learned positions."""
    model = BartForConditionalGeneration(BartConfig(**_SHAPES | changes))
    model.generation_config.update(
        forced_bos_token_id=0, num_beams=4, length_penalty=2.0, no_repeat_ngram_size=3
    )
    model.generation_config.update(early_stopping=True, min_length=5, max_length=50)
    return model


def pegasus(**changes: Any) -> Any:
    """Pre-norm, sinusoids that its file stores; an fp16 file."""
    model = PegasusForConditionalGeneration(
        PegasusConfig(**_SHAPES | {"scale_embedding": True} | changes)
    )
    model.generation_config.update(num_beams=8, length_penalty=0.6, max_length=64)
    return model


def t5(**changes: Any) -> Any:
    """Version 1.0: plain feed-forward, tied and scaled output."""
    return T5ForConditionalGeneration(
        T5Config(**_T5_SHAPES | {"feed_forward_proj": "relu"} | changes)
    )


def flan_t5(**changes: Any) -> Any:
    """Version 1.1: gated feed-forward, an output of its own."""
    return _untied(T5Config(**_T5_SHAPES | _UNTIED | {"feed_forward_proj": "gated-gelu"} | changes))


def mt5(**changes: Any) -> Any:
    """As version 1.1 by name; transformers ties its output, unscaled."""
    return MT5ForConditionalGeneration(MT5Config(**_T5_SHAPES | changes))


def madlad(**changes: Any) -> Any:
    """Version 1.1 with a gate of another kind."""
    return _untied(T5Config(**_T5_SHAPES | _UNTIED | {"feed_forward_proj": "gated-silu"} | changes))


def byt5(**changes: Any) -> Any:
    """Bytes for tokens, a deep encoder and a shallow decoder."""
    shapes = _T5_SHAPES | {"vocab_size": 384, "num_layers": 4, "num_decoder_layers": 1}
    return _untied(T5Config(**shapes | _UNTIED | {"feed_forward_proj": "gated-gelu"} | changes))


def _untied(config: Any) -> Any:
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


FAMILIES: dict[str, Callable[..., Any]] = {
    "marian": marian,
    "marian-separate": marian_separate,
    "marian-untied": marian_untied,
    "m2m100": m2m100,
    "nllb": nllb,
    "mbart": mbart,
    "mbart50": mbart50,
    "bart": bart,
    "pegasus": pegasus,
    "t5": t5,
    "flan-t5": flan_t5,
    "mt5": mt5,
    "madlad": madlad,
    "byt5": byt5,
}
_FILE_DTYPES = {"mbart": torch.bfloat16, "pegasus": torch.float16, "byt5": torch.float16}
_SHARDED = ("nllb", "flan-t5")


def randomise(model: Any, seed: int = 1) -> Any:
    """Fill `model` so that its greedy outputs vary and sometimes end."""
    generator = torch.Generator().manual_seed(seed)
    eos = model.config.eos_token_id
    learns_positions = model.config.model_type in ("bart", "mbart")
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        if "embed_positions" in name and not learns_positions:
            continue  # sinusoids
        weight.data.copy_(_random(name, weight, generator))
        if name.startswith(_TABLES) and "positions" not in name:
            weight.data[eos] *= 1.3
        if name == "final_logits_bias":
            weight.data[0, eos] += 1.0
    return model.eval()


def _random(name: str, weight: Any, generator: torch.Generator) -> Any:
    noise = torch.randn(weight.shape, generator=generator)
    if name == "final_logits_bias":
        return 0.02 * noise
    if "norm" in name:
        value = 0.1 * noise + (1 if name.endswith("weight") else 0)
        sign = torch.randn(weight.shape, generator=generator).sign()
        is_last = name.endswith(_LAST_NORMS)
        return value * sign if is_last else value  # else a tied output repeats the newest token
    if "relative_attention_bias" in name:
        return noise
    if "embed_positions" in name:
        return 0.7 * noise
    if name.startswith(_TABLES):  # of rows of one length: a longer one would win everywhere
        return 0.3 * noise / noise.square().mean(1, keepdim=True).sqrt()
    if weight.dim() == 1:
        return 0.1 * noise
    gain = 1.7 if name.endswith(_SHARP) else 1.0
    if name.endswith("Attention.q.weight"):
        gain /= 4  # T5 does not divide by the root of the head's width
    return noise * gain / weight.shape[1] ** 0.5


def make(name: str, **changes: Any) -> Any:
    """Return the random model `name` of `FAMILIES`, float32, with changes of its config."""
    torch.manual_seed(0)
    return randomise(FAMILIES[name](**changes))


def write(name: str, folder: Path) -> Path:
    """Save the random model `name` in the hub's layout, without a tokenizer; returns `folder`."""
    model = make(name).to(_FILE_DTYPES.get(name, torch.float32))
    model.save_pretrained(folder, max_shard_size="100KB" if name in _SHARDED else "5GB")
    return folder


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Return the checkpoint as transformers reads it."""
    return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()


def random_sources(vocabulary: int, lengths: tuple[int, ...], seed: int = 0) -> list[list[int]]:
    """Return sources of the given lengths, special tokens left out."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, vocabulary - 1, (n,), generator=generator).tolist() for n in lengths]


def padded(sources: list[list[int]], pad: int) -> tuple[Any, Any]:
    """Return token ids [batch, length] and their lengths [batch]."""
    longest = max(map(len, sources))
    rows = [[*source, *[pad] * (longest - len(source))] for source in sources]
    return torch.tensor(rows), torch.tensor([len(source) for source in sources])


@torch.inference_mode()
def reference_logits(model: Any, sources: list[list[int]], targets: Any) -> Any:
    """Return transformers' logits [batch, length, vocabulary] of targets [batch, length]."""
    tokens, lengths = padded(sources, model.config.pad_token_id)
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    return model(input_ids=tokens, attention_mask=mask, decoder_input_ids=targets).logits


@torch.inference_mode()
def reference_greedy(model: Any, sources: list[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Return what transformers generates greedily: the tokens after the start, eos included.

    Forced tokens and lengths of the checkpoint's generation_config.json do not count.
    """
    kept = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
    own = model.generation_config
    fields = {name: getattr(own, name) for name in (*kept, "bad_words_ids")}
    model.generation_config = GenerationConfig(
        **fields, max_new_tokens=max_new_tokens, num_beams=1, do_sample=False
    )
    tokens, lengths = padded(sources, model.config.pad_token_id)
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    generated = model.generate(tokens, attention_mask=mask)[:, 1:].tolist()
    model.generation_config = own
    ends = [
        row.index(own.eos_token_id) + 1 if own.eos_token_id in row else None for row in generated
    ]
    return [row[:end] for row, end in zip(generated, ends, strict=True)]


@torch.inference_mode()
def logit_error(name: str, folder: Path) -> float:
    """Return the largest difference from transformers' logits, both in float32.

    Over four sources of different lengths in one padded batch, and targets of 50 tokens.

    Args:
        name: of `FAMILIES`, for the reader; `write` has saved it in `folder`.
    """
    ours = build(Checkpoint(folder))
    sources = random_sources(ours.config.vocabulary, (1, 9, 30, 61))
    targets = torch.tensor(random_sources(ours.config.vocabulary, (50,) * 4, seed=1))
    targets[:, 0] = ours.config.start
    expected = reference_logits(reference(folder), sources, targets)
    logits = ours(*padded(sources, ours.config.pad), targets)
    return float((logits - expected).abs().max())
