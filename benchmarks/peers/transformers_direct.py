"""Transformers' `generate`, in float32, with a padded batch."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from benchmarks.direct import Ids, Work


class TransformersDirect:
    """A checkpoint as `AutoModelForSeq2SeqLM` loads it."""

    version = str(transformers.__version__)

    def __init__(self, folder: Path) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()
        self._folder = folder

    @torch.inference_mode()
    def translate(self, work: Work) -> list[Ids]:
        """Return the targets' ids in order, without the end; always `rows` a call."""
        config, found = self._model.config, list[Ids]()
        for at in range(0, len(work.sources), work.rows):
            tensors = [torch.tensor(source) for source in work.sources[at : at + work.rows]]
            ids = pad_sequence(tensors, batch_first=True, padding_value=config.pad_token_id)
            answer = self._model.generate(
                input_ids=ids,
                attention_mask=(ids != config.pad_token_id).long(),
                max_new_tokens=work.longest,
                num_beams=work.beams,
                do_sample=False,
            )
            ends = {config.eos_token_id, config.pad_token_id}
            found += [[t for t in row[1:] if t not in ends] for row in answer.tolist()]
        return found

    def translate_texts(self, texts: Sequence[str], target: str) -> list[str]:
        """Translate greedily from English, all at once, tokenisation included."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder)
        sources = tokenizer([f">>{target}<< {text}" for text in texts]).input_ids
        targets = self.translate(Work(sources=sources, rows=len(texts)))
        return [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in targets]
