"""A checkpoint's tokenizer: which class its files ask for."""

import re
from collections.abc import Callable

import tokenizers

from model.checkpoint import Checkpoint, CheckpointError
from model.config import UnsupportedModel
from model.languages import is_language
from model.tokenizers import assembly
from model.tokenizers.byt5 import ByT5Tokenizer
from model.tokenizers.contract import Tokenizer
from model.tokenizers.m2m100 import M2M100Tokenizer
from model.tokenizers.marian import MarianTokenizer
from model.tokenizers.pipeline import PipelineTokenizer
from model.tokenizers.prompts import (
    Form,
    LanguageTokens,
    NoTranslation,
    TargetPieces,
    TextPrefixes,
    text_prefixes,
)
from model.tokenizers.settings import Settings, read_settings, text_of

_REGISTERED = {  # which class transformers takes where the files name none
    "marian": "MarianTokenizer",
    "m2m_100": "M2M100Tokenizer",
    "mbart": "MBartTokenizer",
    "bart": "RobertaTokenizer",
    "pegasus": "PegasusTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
}
_OWN_KINDS: dict[str, Callable[..., Tokenizer]] = {
    "MarianTokenizer": MarianTokenizer,
    "M2M100Tokenizer": M2M100Tokenizer,
    "ByT5Tokenizer": ByT5Tokenizer,
}
_PIPELINES = {
    "NllbTokenizer": assembly.nllb,
    "MBartTokenizer": assembly.mbart,
    "MBart50Tokenizer": assembly.mbart50,
    "RobertaTokenizer": assembly.roberta,
    "BartTokenizer": assembly.roberta,
    "PegasusTokenizer": assembly.pegasus,
    "T5Tokenizer": assembly.t5,
    "MT5Tokenizer": assembly.generic,  # transformers 5 has no class of this name
    "PreTrainedTokenizer": assembly.generic,
    "TokenizersBackend": assembly.generic,
}
_REFUSED = {"auto_map", "fast_tokenizer_files"}  # code of its own, files by version
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_FAIRSEQ = re.compile(r"[a-z]{2}_[A-Z]{2}")
_TARGET_PIECE = re.compile(r"<2([A-Za-z_]+)>")
_SENTINEL = re.compile("\u2581?<extra_id_\\d+>")


def open_tokenizer(
    checkpoint: Checkpoint, *, architecture: str, vocabulary: int, eos: int
) -> Tokenizer:
    """Open the tokenizer that transformers' AutoTokenizer opens.

    Args:
        architecture: config.json's model_type.
        vocabulary: tokens that the model has an embedding for.
        eos: the id that ends a target, for tokenizers that name none.

    Raises:
        CheckpointError: a file is missing or damaged.
        UnsupportedModel: the class, or something that it needs, is not supported.
    """
    published = checkpoint.read_json("tokenizer_config.json", default={})
    named = published.get("tokenizer_class") or checkpoint.config.get("tokenizer_class")
    name = str(named or _REGISTERED.get(architecture, "")).removesuffix("Fast")
    try:
        for key in _REFUSED & set(published):
            raise UnsupportedModel(f"tokenizer_config.json: {key} is not supported")
        return _open(checkpoint, name, vocabulary, eos)
    except CheckpointError:
        raise
    except UnsupportedModel as error:
        raise UnsupportedModel(f"{checkpoint.folder}: {error}") from error
    except BaseException as error:  # of a hostile file, whatever it makes the libraries raise
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{checkpoint.folder}: the files of its {name} are damaged or do not fit: {reason}"
        ) from error


def _open(checkpoint: Checkpoint, name: str, vocabulary: int, eos: int) -> Tokenizer:
    has_pipeline = (checkpoint.folder / "tokenizer.json").is_file()
    is_stored = has_pipeline and _is_stored(checkpoint, name)
    settings = read_settings(checkpoint)
    if name in _OWN_KINDS and not is_stored:
        return _OWN_KINDS[name](checkpoint, settings, vocabulary=vocabulary)
    if name not in _PIPELINES and not is_stored:
        raise UnsupportedModel(f"tokenizer_class {name!r} is not supported")
    build = assembly.as_stored if is_stored else _PIPELINES[name]
    pipeline = build(checkpoint, settings)
    cleans = settings.flag("clean_up_tokenization_spaces") and not is_stored
    tokenizer = PipelineTokenizer(pipeline, vocabulary=vocabulary, cleans=cleans)
    if not is_stored:
        tokenizer.form = _form(checkpoint, name, settings, tokenizer, pipeline, eos)
    if beyond := tokenizer.beyond():
        size = pipeline.get_vocab_size(with_added_tokens=False)
        raise CheckpointError(
            f"{checkpoint.folder}: the tokenizer has {size} ids; config.json says {vocabulary}, "
            f"so that {beyond!r} has no embedding"
        )
    return tokenizer


def _is_stored(checkpoint: Checkpoint, name: str) -> bool:
    """Whether transformers cannot load the folder, so that tokenizer.json counts as it stands."""
    if name == "MarianTokenizer":
        return not (checkpoint.folder / "source.spm").exists()
    if name == "BarthezTokenizer":
        model = checkpoint.read_json("tokenizer.json").get("model") or {}
        return isinstance(model.get("vocab"), dict)
    return False


def _form(
    checkpoint: Checkpoint,
    name: str,
    settings: Settings,
    tokenizer: PipelineTokenizer,
    pipeline: tokenizers.Tokenizer,
    eos: int,
) -> Form:
    end = settings.values.get("eos_token")
    found = pipeline.token_to_id(text_of(end) if end else "</s>")
    eos = eos if found is None else found
    added = {token.content: i for i, token in pipeline.get_added_tokens_decoder().items()}
    if name == "NllbTokenizer":
        own = {token: i for token, i in added.items() if _FLORES.fullmatch(token)}
        if settings.flag("legacy_behaviour"):
            return LanguageTokens(own, eos=eos, source_at="behind", target_as="forced_bos")
        return LanguageTokens(own, eos=eos, source_at="front", target_as="forced_bos")
    if name in ("MBartTokenizer", "MBart50Tokenizer"):
        ids = pipeline.get_vocab()
        own = {token: i for token, i in ids.items() if _FAIRSEQ.fullmatch(token)}
        own = dict(sorted(own.items(), key=lambda item: item[1]))
        if name == "MBartTokenizer":
            return LanguageTokens(own, eos=eos, source_at="behind", target_as="start")
        return LanguageTokens(own, eos=eos, source_at="front", target_as="forced_bos")
    if name in ("T5Tokenizer", "MT5Tokenizer"):
        return _t5_form(checkpoint, tokenizer, pipeline, eos)
    return NoTranslation()


def _t5_form(
    checkpoint: Checkpoint, tokenizer: PipelineTokenizer, pipeline: tokenizers.Tokenizer, eos: int
) -> Form:
    vocabulary = pipeline.get_vocab()
    tokenizer.reserve(filter(_SENTINEL.fullmatch, vocabulary))
    pieces = {m[1]: m[0] for token in vocabulary if (m := _TARGET_PIECE.fullmatch(token))}
    if len(pieces) > 1:
        tokenizer.reserve(pieces.values())
        codes = sorted(filter(is_language, pieces))
        return TargetPieces(codes, tokenizer.encode_bare, eos=eos)
    prefixes = text_prefixes(checkpoint.config)
    return TextPrefixes(prefixes, eos=eos) if prefixes else NoTranslation()
