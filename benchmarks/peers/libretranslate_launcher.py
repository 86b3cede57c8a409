"""Starts LibreTranslate offline with our checkpoint; run by the Python of its own environment.

Two things of Argos are replaced: its sentence splitter, which downloads a model, by the one that
Stele uses; and what its SentencePiece tokenizer leaves out, the language token and the end.
"""

import sentencex
from argostranslate import package, sbd, tokenizer
from libretranslate.main import main


def _split(self: sbd.MiniSBDSentencizer, text: str) -> list[str]:
    return [each.strip() for each in sentencex.segment(self.pkg.from_code, text) if each.strip()]


_encode = tokenizer.SentencePieceTokenizer.encode


def _encode_for_marian(self: tokenizer.SentencePieceTokenizer, sentence: str) -> list[str]:
    code = package.Package(self.model_file.parent).to_code
    return [f">>{code}<<", *_encode(self, sentence), "</s>"]


sbd.MiniSBDSentencizer.split_sentences = _split
tokenizer.SentencePieceTokenizer.encode = _encode_for_marian

if __name__ == "__main__":
    main()
