"""Small tokenizers of every family, trained here and laid out as the hub's repositories are."""

import io
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from model.tokenizers.codes import M2M100_CODES, MBART50_CODES, MBART_CODES

Files = Literal["json", "sentencepiece"]
_SOME = "arb_Arab azb_Arab deu_Latn eng_Latn fra_Latn jpn_Jpan kas_Arab kas_Deva rus_Cyrl srp_Cyrl"
FLORES = [*_SOME.split(), "zho_Hans", "zho_Hant"]
M2M100 = list(M2M100_CODES["m2m100"])
_SPACE = "\u2581"

_WORDS = {
    "en": "the a of time house water people never small light going would translation's don't",
    "de": "der die das und nicht Straße Übung schön größer Häuser Zeit Übersetzung für kleine über",
    "fr": "le la les où été garçon français cœur l'eau naïve jusqu'à forêt être aujourd'hui",
    "ru": "и в не на что вода время люди маленький перевод язык быстро никогда дом свет большой",
    "el": "και το να μετάφραση νερό σπίτι άνθρωποι χρόνος μικρό φως ποτέ γλώσσα γρήγορα μεγάλος",
    "ar": "في من على الماء الوقت الناس صغير ترجمة لغة بسرعة أبدا بيت ضوء كبير",
    "hi": "और में है पानी समय लोग छोटा अनुवाद भाषा जल्दी कभी घर प्रकाश बड़ा",
    "ja": "私は これを 翻訳 する 水 時間 人々 小さい 言語 早く 家 光 大きい です",
    "zh": "我们 翻译 语言 水 时间 人 小 快 家 光 大 从来 没有 的",
    "ko": "우리는 번역 언어 물 시간 사람들 작은 빨리 집 빛 큰 결코",
}
_MARKS = [". ", "! ", "? ", ", ", " . ", " , ", "; ", ": ", " — ", "… ", ' "', '" ', " (", ") "]


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Yield sentences in ten languages, numbers and punctuation among the words."""
    rng = random.Random(seed)
    words = [text.split() for text in _WORDS.values()]
    for _ in range(count):
        language = rng.choice(words)
        parts = []
        for _ in range(rng.randint(2, 12)):
            word = rng.choice(language)
            word = word.capitalize() if rng.random() < 0.1 else word
            word = str(rng.randint(0, 10**6)) if rng.random() < 0.05 else word
            parts += [word, rng.choice(_MARKS) if rng.random() < 0.2 else " "]
        yield "".join(parts).strip() + rng.choice([".", "!", "?", ""])


@cache
def _model(kind: str, size: int, *symbols: str, **options: Any) -> bytes:
    """Train a SentencePiece model; `symbols` are user-defined."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(3000),
        model_writer=written,
        model_type=kind,
        vocab_size=size,
        character_coverage=0.995,
        user_defined_symbols=list(symbols),
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return written.getvalue()


def _pieces(model: bytes) -> list[tuple[str, float]]:
    spm = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(spm.id_to_piece(i), spm.get_score(i)) for i in range(spm.get_piece_size())]


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _charsmap(model: bytes) -> bytes:
    schema: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    return bytes(schema.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap)


def _unigram(
    folder: Path,
    model: bytes,
    vocabulary: list[tuple[str, float]],
    unknown: int,
    template: str,
    special: list[str],
) -> None:
    """Write tokenizer.json as the converters of transformers 4 wrote it."""
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown))
    _pipeline(tokenizer, model, template, special)
    tokenizer.save(str(folder / "tokenizer.json"))


def _pipeline(tokenizer: Tokenizer, model: bytes, template: str, special: list[str]) -> None:
    steps = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), _SPACE)]
    precompiled = normalizers.Precompiled(_charsmap(model))
    tokenizer.normalizer = normalizers.Sequence([precompiled, *steps])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    ids = {token: tokenizer.token_to_id(token) for token in template.split() if token[0] != "$"}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B", special_tokens=list(ids.items())
    )


def _marian(folder: Path, files: Files, *, languages: tuple[str, ...] = ()) -> int:
    sides = {"source": _model("unigram", 500), "target": _model("unigram", 400)}
    for side, model in sides.items():
        (folder / f"{side}.spm").write_bytes(model)
    pieces = sorted({p for m in sides.values() for p, _ in _pieces(m)} - {"<unk>", "<s>", "</s>"})
    tokens = ["</s>", "<unk>", *pieces, *(f">>{code}<<" for code in languages), "<pad>"]
    _write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    names = {"source_lang": "en", "target_lang": "mul" if languages else "de"}
    _write_json(
        folder / "tokenizer_config.json",
        names | {"tokenizer_class": "MarianTokenizer", "model_max_length": 512},
    )
    return len(tokens)


def _marian_multilingual(folder: Path, files: Files) -> int:
    return _marian(folder, files, languages=("deu", "fra", "cmn_Hans", "cmn_Hant", "srp_Cyrl"))


def _m2m100(folder: Path, files: Files) -> int:
    model = _model("unigram", 600)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(piece for piece, _ in _pieces(model)[3:])]
    _write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special["sep_token"] = "</s>"
    codes = {"additional_special_tokens": [f"__{code}__" for code in M2M100]}
    _write_json(folder / "special_tokens_map.json", special | codes)
    _write_json(
        folder / "tokenizer_config.json",
        special
        | {"src_lang": None, "tgt_lang": None, "language_codes": "m2m100", "num_madeup_words": 8}
        | {"tokenizer_class": "M2M100Tokenizer"},
    )
    return len(tokens) + len(M2M100) + 8


def _nllb(folder: Path, files: Files) -> int:
    model = _model("bpe", 600)
    base = ["<s>", "<pad>", "</s>", "<unk>", *(piece for piece, _ in _pieces(model)[3:])]
    tokens = [*base, *FLORES, "<mask>"]
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    if files == "json":
        ids = {token: i for i, token in enumerate(base)}
        tokenizer = Tokenizer(
            models.BPE(vocab=ids, merges=_merges(ids), unk_token="<unk>", fuse_unk=True)
        )
        _pipeline(
            tokenizer,
            model,
            "eng_Latn $A </s>",
            ["<s>", "<pad>", "</s>", "<unk>", *tokens[len(base) :]],
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "additional_special_tokens": FLORES,
        "src_lang": "eng_Latn",
        "tgt_lang": None,
        "tokenizer_class": "NllbTokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)
    return len(tokens)


def _merges(ids: dict[str, int]) -> list[tuple[str, str]]:
    """Return BPE merges in the order of the pieces that they make."""
    found: list[tuple[int, int, int, str, str]] = []
    for piece, rank in ids.items():
        halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        found += [(rank, len(a), len(b), a, b) for a, b in halves if a in ids and b in ids]
    return [(a, b) for *_, a, b in sorted(found)]


def _fairseq(model: bytes, codes: list[str]) -> list[tuple[str, float]]:
    begin = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return [*begin, *_pieces(model)[3:], *((code, 0.0) for code in [*codes, "<mask>"])]


def _mbart(folder: Path, files: Files) -> int:
    return _fairseq_folder(folder, files, list(MBART_CODES), "MBartTokenizer", "$A </s> en_XX")


def _mbart50(folder: Path, files: Files) -> int:
    return _fairseq_folder(folder, files, list(MBART50_CODES), "MBart50Tokenizer", "en_XX $A </s>")


def _fairseq_folder(folder: Path, files: Files, codes: list[str], name: str, template: str) -> int:
    model = _model("unigram", 600)
    vocabulary = _fairseq(model, codes)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    if files == "json":
        special = ["<s>", "<pad>", "</s>", "<unk>", *codes, "<mask>"]
        _unigram(folder, model, vocabulary, 3, template, special)
    special_map = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "mask_token": {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": True}
        | {"single_word": False},
    }
    if name == "MBart50Tokenizer":
        _write_json(
            folder / "special_tokens_map.json", special_map | {"additional_special_tokens": codes}
        )
    _write_json(
        folder / "tokenizer_config.json",
        {"src_lang": "en_XX" if name == "MBart50Tokenizer" else None, "tgt_lang": None}
        | {"tokenizer_class": name},
    )
    return len(vocabulary)


def _bart(folder: Path, files: Files) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(1000), trainer)
    tokenizer.add_special_tokens(["<mask>"])
    if files == "json":
        tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    ids = model["vocab"] | {"<mask>": tokenizer.token_to_id("<mask>")}
    _write_json(folder / "vocab.json", ids)
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BartTokenizer"})
    return len(ids)


def _pegasus(folder: Path, files: Files) -> int:
    model = _model("unigram", 600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    unknowns = [(f"<unk_{i}>", -100.0) for i in range(2, 103)]
    begin = [("<pad>", 0.0), ("</s>", 0.0), ("<mask_1>", 0.0), ("<mask_2>", 0.0), *unknowns]
    vocabulary = [*begin, *_pieces(model)[2:]]
    (folder / "spiece.model").write_bytes(model)
    if files == "json":
        special = ["<pad>", "</s>", "<mask_1>", "<mask_2>", *(t for t, _ in unknowns), "<unk>"]
        _unigram(folder, model, vocabulary, 105, "$A </s>", special)
    config = {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask_2>",
        "mask_token_sent": "<mask_1>",
        "offset": 103,
        "additional_special_tokens": ["<mask_1>", *(token for token, _ in unknowns)],
        "tokenizer_class": "PegasusTokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)
    return len(vocabulary)


def _t5(folder: Path, files: Files) -> int:
    model = _model("unigram", 600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    extra = [f"<extra_id_{i}>" for i in range(100)]
    vocabulary = [*_pieces(model), *((token, 0.0) for token in reversed(extra))]
    (folder / "spiece.model").write_bytes(model)
    special = ["<pad>", "</s>", "<unk>", *extra]
    if files == "json":
        _unigram(folder, model, vocabulary, 2, "$A </s>", special)
    config = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 100,
        "additional_special_tokens": extra,
        "clean_up_tokenization_spaces": True,
        "tokenizer_class": "T5Tokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)
    return len(vocabulary)


def _mt5(folder: Path, files: Files) -> int:
    extra = [f"<extra_id_{i}>" for i in range(99, -1, -1)]
    options = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "byte_fallback": True}
    model = _model("unigram", 1100, *extra, **options)
    (folder / "spiece.model").write_bytes(model)
    if files == "json":
        _unigram(folder, model, _pieces(model), 2, "$A </s>", ["<pad>", "</s>", "<unk>"])
    config = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 0,
        "additional_special_tokens": None,
        "tokenizer_class": "T5Tokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)
    return len(_pieces(model))


def _madlad(folder: Path, files: Files) -> int:
    codes = [
        f"<2{code}>"
        for code in ("de", "en", "fr", "ja", "ru", "zh", "zh_Hant", "sr", "ber", "back_translated")
    ]
    options = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "byte_fallback": True}
    model = _model("unigram", 1000, *codes, **options)
    (folder / "spiece.model").write_bytes(model)
    if files == "json":
        _unigram(folder, model, _pieces(model), 0, "$A </s>", ["<unk>", "<s>", "</s>"])
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<s>",
        "extra_ids": 0,
        "additional_special_tokens": [],
        "tokenizer_class": "T5Tokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)
    return len(_pieces(model))


def _byt5(folder: Path, files: Files) -> int:
    def token(content: str) -> dict[str, Any]:
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        return {"__type": "AddedToken", "content": content, **flags}

    config = {
        "eos_token": token("</s>"),
        "unk_token": token("<unk>"),
        "pad_token": token("<pad>"),
        "extra_ids": 125,
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(125)],
        "tokenizer_class": "ByT5Tokenizer",
    }
    _write_json(folder / "tokenizer_config.json", config)
    return 384


_WRITERS: dict[str, tuple[str, Callable[[Path, Files], int]]] = {
    "marian": ("marian", _marian),
    "marian-multilingual": ("marian", _marian_multilingual),
    "m2m100": ("m2m_100", _m2m100),
    "nllb": ("m2m_100", _nllb),
    "mbart": ("mbart", _mbart),
    "mbart50": ("mbart", _mbart50),
    "bart": ("bart", _bart),
    "pegasus": ("pegasus", _pegasus),
    "t5": ("t5", _t5),
    "mt5": ("mt5", _mt5),
    "madlad": ("t5", _madlad),
    "byt5": ("t5", _byt5),
}
FAMILIES = tuple(_WRITERS)


def model_type(family: str) -> str:
    """Return what config.json of the family calls it."""
    return _WRITERS[family][0]


def write_tokenizer(family: str, folder: Path, files: Files = "json") -> int:
    """Write the family's tokenizer files, without config.json, into an existing folder.

    Args:
        family: one of FAMILIES.
        files: `sentencepiece` leaves tokenizer.json out where the hub has folders without it.

    Returns:
        The size of the vocabulary, made-up words and extra ids included.
    """
    return _WRITERS[family][1](folder, files)
