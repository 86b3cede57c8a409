"""The `tokenizers` pipeline of each tokenizer class, as transformers 5 assembles it.

transformers takes pieces, merges and the compiled normalisation from the files and builds the
rest of the pipeline anew for each class; what else tokenizer.json says does not count.
"""

from collections.abc import Sequence
from typing import Any

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from model.checkpoint import Checkpoint
from model.tokenizers.codes import FLORES_CODES, MBART50_CODES, MBART_CODES
from model.tokenizers.settings import Settings, text_of
from model.tokenizers.vocabulary import Vocabulary, merges_of, read_vocabulary

_SPIECE = ("spiece.model",)
_FAIRSEQ = ("sentencepiece.bpe.model",)
_DEFAULTS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
}
_ENDED = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def t5(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """T5, mT5 and MADLAD-400: words by white space, sentinels behind the vocabulary."""
    vocabulary = read_vocabulary(checkpoint, *_SPIECE)
    count = settings.count("extra_ids", 100)
    sentinels = [f"<extra_id_{i}>" for i in range(count)]
    extra = settings.values.get("additional_special_tokens")
    scored = vocabulary.scored
    if vocabulary.is_from_sentencepiece:
        scored = scored + [(token, 0.0) for token in reversed(sentinels)]
        extra = vocabulary.symbols
    if not extra or not any("<extra_id_" in text_of(token) for token in extra):
        extra = [*(extra or ()), *sentinels]
    pipeline = _unigram(scored, unknown=2)
    if vocabulary.charsmap:
        pipeline.normalizer = normalizers.Precompiled(vocabulary.charsmap)
    pipeline.pre_tokenizer = _words()
    _add(pipeline, settings, _ENDED, settings.extra(extra))
    _frame(
        pipeline,
        ["$A", "</s>"],
        {"</s>": _id(pipeline, text_of(settings.values.get("eos_token", "</s>")))},
    )
    return pipeline


def pegasus(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """Pegasus: two masks and the unused unknowns in front of the vocabulary."""
    vocabulary = read_vocabulary(checkpoint, *_SPIECE)
    values = settings.values
    unused = [f"<unk_{i}>" for i in range(2, settings.count("offset", 103))]
    sent = values.get("mask_token_sent", "<mask_1>")
    scored = vocabulary.scored
    if vocabulary.is_from_sentencepiece:
        masks = [values.get("mask_token", "<mask_1>"), values.get("mask_token_sent", "<mask_2>")]
        names = [values.get("pad_token", "<pad>"), values.get("eos_token", "</s>")]
        names += dict.fromkeys(mask for mask in masks if mask is not None)
        begin = [(text_of(name), 0.0) for name in names] + [(name, -100.0) for name in unused]
        scored = begin + scored[2:]
    unknown = text_of(values.get("unk_token", "<unk>"))
    pipeline = _unigram(scored, unknown=scored.index((unknown, 0.0), 1))
    many_spaces = normalizers.Replace(Regex(" {2,}"), " ")
    first = (
        normalizers.Precompiled(vocabulary.charsmap)
        if vocabulary.charsmap
        else normalizers.Replace(Regex("\n"), " ")
    )
    pipeline.normalizer = normalizers.Sequence([first, many_spaces])
    pipeline.pre_tokenizer = _metaspace()
    extra = _symbols(vocabulary, settings)
    has_sent = extra is not None and sent in map(text_of, extra)
    defaults: dict[str, Any] = _ENDED | {"mask_token": "<mask_2>"}
    extra = settings.extra([*([] if has_sent or sent is None else [sent]), *unused])
    _add(pipeline, settings, defaults, extra)
    eos = text_of(values.get("eos_token", "</s>"))
    _frame(pipeline, ["$A", eos], {eos: _id(pipeline, eos)})
    return pipeline


def mbart(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """mBART-25: words by white space; end and source language behind them."""
    vocabulary = read_vocabulary(checkpoint, *_FAIRSEQ)
    pipeline = _unigram(_fairseq(vocabulary, settings, MBART_CODES), unknown=3)
    pipeline.pre_tokenizer = _words()
    extra = list(MBART_CODES)
    extra += [t for t in _symbols(vocabulary, settings) or () if text_of(t) not in MBART_CODES]
    defaults: dict[str, Any] = {**_DEFAULTS, "mask_token": AddedToken("<mask>", lstrip=True)}
    _add(pipeline, settings, _with_mask(settings, defaults), settings.extra(extra))
    _language(pipeline, settings, "en_XX", "$A", "eos", "language")
    return pipeline


def mbart50(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """mBART-50: source language in front, end behind."""
    vocabulary = read_vocabulary(checkpoint, *_FAIRSEQ)
    scored = vocabulary.scored
    if vocabulary.is_from_sentencepiece or not {piece for piece, _ in scored} & set(MBART50_CODES):
        scored = _fairseq(vocabulary, settings, MBART50_CODES, begins=True)
    pipeline = _unigram(scored, unknown=3)
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(" {2,}"), " ")]
    if vocabulary.charsmap:
        steps.insert(0, normalizers.Precompiled(vocabulary.charsmap))
    pipeline.normalizer = normalizers.Sequence(steps)
    pipeline.pre_tokenizer = _metaspace()
    extra = [*(_symbols(vocabulary, settings) or ()), *MBART50_CODES]
    defaults: dict[str, Any] = {**_DEFAULTS, "mask_token": AddedToken("<mask>", lstrip=True)}
    del defaults["bos_token"]
    _add(pipeline, settings, _with_mask(settings, defaults), settings.extra(extra))
    _language(pipeline, settings, "en_XX", "language", "$A", "eos")
    return pipeline


def nllb(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """NLLB-200: BPE; source language in front, end behind (`legacy_behaviour`: both behind)."""
    vocabulary = read_vocabulary(checkpoint, *_FAIRSEQ)
    ids, merges = vocabulary.ids, vocabulary.merges
    if vocabulary.is_from_sentencepiece:
        merges = merges_of(ids)
        begin = [_name(settings, f"{name}_token") for name in ("bos", "pad", "eos", "unk")]
        ids = {piece: i for i, piece in enumerate(dict.fromkeys([*begin, *ids]))}
    unknown = _name(settings, "unk_token")
    bpe = models.BPE(vocab=ids, merges=merges, unk_token=unknown, fuse_unk=True)
    pipeline = tokenizers.Tokenizer(bpe)
    if vocabulary.charsmap:
        steps = [normalizers.Precompiled(vocabulary.charsmap)]
        pipeline.normalizer = normalizers.Sequence(
            [*steps, normalizers.Replace(Regex(" {2,}"), " ")]
        )
    pipeline.pre_tokenizer, pipeline.decoder = _metaspace(), decoders.Metaspace()
    extra = _symbols(vocabulary, settings)
    mask = AddedToken("<mask>", normalized=True, lstrip=True, special=True)
    if settings.values.get("extra_special_tokens") is not None:
        extra = settings.values["extra_special_tokens"]
    defaults = _with_mask(settings, _DEFAULTS | {"mask_token": mask})
    _add(pipeline, settings, defaults, list(FLORES_CODES if extra is None else extra))
    order = (
        ("$A", "eos", "language")
        if settings.flag("legacy_behaviour")
        else ("language", "$A", "eos")
    )
    _language(pipeline, settings, "eng_Latn", *order)
    return pipeline


def roberta(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """BART: byte-level BPE."""
    vocabulary = read_vocabulary(checkpoint, "vocab.json")
    pipeline = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary.ids,
            merges=vocabulary.merges,
            continuing_subword_prefix="",
            end_of_word_suffix="",
            fuse_unk=False,
        )
    )
    has_space = settings.flag("add_prefix_space")
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=has_space)
    pipeline.decoder = decoders.ByteLevel()
    _add(pipeline, settings, _DEFAULTS | {"mask_token": "<mask>"}, _unnamed(settings))
    sep, cls = _name(settings, "sep_token"), _name(settings, "cls_token")
    pipeline.post_processor = processors.RobertaProcessing(
        (sep, _id(pipeline, sep)),
        (cls, _id(pipeline, cls)),
        bool(settings.values.get("trim_offsets", True)),
        has_space,
    )
    return pipeline


def generic(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """PreTrainedTokenizerFast: tokenizer.json, and the special tokens of the other files."""
    pipeline = as_stored(checkpoint, settings)
    _add(pipeline, settings, {}, _unnamed(settings))
    return pipeline


def as_stored(checkpoint: Checkpoint, settings: Settings) -> tokenizers.Tokenizer:
    """A folder that transformers does not load: tokenizer.json as it stands."""
    return tokenizers.Tokenizer.from_file(str(checkpoint.file("tokenizer.json")))


# -- parts ---------------------------------------------------------------------------------------


def _unigram(scored: list[tuple[str, float]], unknown: int) -> tokenizers.Tokenizer:
    if not scored:
        raise ValueError("tokenizer.json holds no Unigram model, which this class needs")
    pipeline = tokenizers.Tokenizer(models.Unigram(scored, unk_id=unknown, byte_fallback=False))
    pipeline.decoder = decoders.Metaspace()
    return pipeline


def _metaspace() -> pre_tokenizers.Metaspace:
    return pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)


def _words() -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), _metaspace()])


def _name(settings: Settings, name: str) -> str:
    return text_of(settings.values.get(name, _DEFAULTS[name]))


def _with_mask(settings: Settings, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return `defaults`, whose mask token gives its flags to one that the files name as text."""
    mask = settings.values.get("mask_token")
    if isinstance(mask, str):
        flags = defaults["mask_token"]
        settings.values["mask_token"] = AddedToken(
            mask, lstrip=True, normalized=flags.normalized, special=flags.special
        )
    return defaults


def _symbols(vocabulary: Vocabulary, settings: Settings) -> list[Any] | None:
    found = settings.values.get("additional_special_tokens")
    return vocabulary.symbols if vocabulary.is_from_sentencepiece else found


def _fairseq(
    vocabulary: Vocabulary, settings: Settings, codes: Sequence[str], *, begins: bool = False
) -> list[tuple[str, float]]:
    """Return SentencePiece's pieces with fairseq's beginning and the languages behind."""
    if not vocabulary.is_from_sentencepiece and not begins:
        return vocabulary.scored
    names = ("cls" if begins else "bos", "pad", "eos", "unk")
    begin = [(_name(settings, f"{name}_token"), 0.0) for name in names]
    mask = text_of(settings.values.get("mask_token", "<mask>"))
    return [*begin, *vocabulary.scored[3:], *((code, 0.0) for code in [*codes, mask])]


def _unnamed(settings: Settings) -> list[Any]:
    return settings.extra(settings.values.get("additional_special_tokens"))


def _add(
    pipeline: tokenizers.Tokenizer, settings: Settings, defaults: dict[str, Any], extra: list[Any]
) -> None:
    """Add the tokens beside the model's vocabulary in the order in which they get their ids.

    Args:
        defaults: named special tokens of the class.
        extra: special tokens without a name.
    """
    there = pipeline.get_added_tokens_decoder()
    same = {repr(token) for token in there.values()}
    new: list[Any] = [t for _, t in sorted(settings.added.items()) if repr(t) not in same]
    known = {token.content for token in [*there.values(), *new]}
    named = settings.named_tokens(defaults)
    new += [token for token in [*named, *extra] if text_of(token) not in known]
    names = set(map(text_of, named))
    for token in new:
        if isinstance(token, AddedToken) and not token.special and token.content in names:
            token.special = True
    pipeline.add_tokens([AddedToken(t, special=True) if isinstance(t, str) else t for t in new])
    pipeline.encode_special_tokens = settings.flag("split_special_tokens")


def _id(pipeline: tokenizers.Tokenizer, token: str) -> int:
    found = pipeline.token_to_id(token)
    if found is None:
        raise ValueError(f"the vocabulary lacks {token}")
    return found


def _frame(pipeline: tokenizers.Tokenizer, single: list[str], ids: dict[str, int]) -> None:
    pipeline.post_processor = processors.TemplateProcessing(
        single=single, pair=[*single, "$B"], special_tokens=list(ids.items())
    )


def _language(
    pipeline: tokenizers.Tokenizer, settings: Settings, default: str, *order: str
) -> None:
    """Frame raw input by end and the default source language, in the given order."""
    language = settings.values.get("src_lang") or default
    found = pipeline.token_to_id(language)
    code = _id(pipeline, _name(settings, "unk_token")) if found is None else found
    eos = _name(settings, "eos_token")
    ids = {eos: _id(pipeline, eos), language: code}
    names = {"eos": eos, "language": language, "$A": "$A"}
    _frame(pipeline, [names[part] for part in order], ids)
