"""CTranslate2 called directly, as its users do: token strings in, one `translate_batch`."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ctranslate2
import sentencepiece

from benchmarks.direct import LONGEST, Ids, Work


class CTranslate2Direct:
    """A converted checkpoint: Marian, or another that is given only ids.

    Args:
        folder: of the conversion, with Marian's source.spm and target.spm beside.
        compute_type: int8 or float32.
        intra: threads of one batch.
        inter: batches at the same time; a call's sources are then cut into as many.
    """

    version = str(ctranslate2.__version__)

    def __init__(self, folder: Path, compute_type: str, intra: int, inter: int) -> None:
        self._translator = ctranslate2.Translator(
            str(folder), compute_type=compute_type, intra_threads=intra, inter_threads=inter
        )
        self._inter = inter
        vocabulary = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
        self._pieces: list[str] = vocabulary
        self._ids = {piece: index for index, piece in enumerate(vocabulary)}
        self._folder = folder

    def translate(self, work: Work) -> list[Ids]:
        """Return the targets' ids in order, without the end."""
        found: list[Ids] = []
        for sources in work.calls:
            pieces = [[self._pieces[token] for token in source] for source in sources]
            answer = self._call(pieces, work.rows, work.beams, work.longest)
            found += [[self._ids[piece] for piece in target] for target in answer]
        return found

    def _call(
        self, pieces: Sequence[list[str]], rows: int, beams: int, longest: int
    ) -> list[list[str]]:
        answer: list[Any] = self._translator.translate_batch(
            pieces,
            beam_size=beams,
            max_decoding_length=longest,
            max_batch_size=-(-rows // self._inter),  # it sorts by length and cuts, at one call
        )
        return [each.hypotheses[0] for each in answer]

    def translate_texts(self, texts: Sequence[str], target: str) -> list[str]:
        """Translate greedily from English, all at once, tokenisation included."""
        source, joiner = self._sentencepiece
        pieces = [[f">>{target}<<", *source.encode(t, out_type=str), "</s>"] for t in texts]
        return [str(joiner.decode(t)) for t in self._call(pieces, len(texts), 1, LONGEST)]

    @cached_property
    def _sentencepiece(self) -> list[sentencepiece.SentencePieceProcessor]:
        """Marian's; only what is given as texts needs them."""
        return [
            sentencepiece.SentencePieceProcessor(model_file=str(self._folder / name))
            for name in ("source.spm", "target.spm")
        ]
