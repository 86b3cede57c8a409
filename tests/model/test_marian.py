"""Every Marian config that is accepted computes what transformers computes from it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MarianMTModel

from model import load
from tests.model.networks import eager


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation_function": "swish"},
        {"activation_function": "gelu"},
        {"scale_embedding": False},
        {"encoder_attention_heads": 2, "decoder_attention_heads": 8},
        {"max_position_embeddings": 40},
    ],
    ids=json.dumps,
)
def test_logits_of_a_random_checkpoint_equal_the_reference(
    tiny_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    published = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(published))
    source = torch.randint(1, 8000, (1, 30), generator=torch.Generator().manual_seed(0))
    target = torch.randint(1, 8000, (1, 40), generator=torch.Generator().manual_seed(1))
    reference: Any = MarianMTModel.from_pretrained(folder, dtype=torch.float32)

    with torch.inference_mode():
        theirs = reference.eval()(input_ids=source, decoder_input_ids=target).logits
        ours = eager(load(folder, slots=1, precision="float32").runner.network)(
            source, torch.tensor([30]), target
        )

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
