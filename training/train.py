"""The training loop: resumable, deterministic from a seed, on a CPU or one GPU."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import MarianMTModel

from training.corpus import Ragged, batches
from training.network import Average, token_loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights besides the data."""

    width: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 3
    steps: int = 6000
    focus_steps: int = 900  # after them, on the corpus that the model is for
    focus_rate: float = 3e-4
    warmup_steps: int = 1000
    peak_rate: float = 1.4e-3
    batch_tokens: int = 5000
    smoothing: float = 0.1
    average_decay: float = 0.998
    seed: int = 1

    def rate(self, step: int) -> float:
        """Rise linearly to the peak, fall as a cosine to zero; then linearly once more."""
        if step >= self.steps:
            return self.focus_rate * (1 - (step - self.steps) / max(1, self.focus_steps))
        if step < self.warmup_steps:
            return self.peak_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.peak_rate * 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))


Examples = tuple[Ragged, Ragged]  # sources and their targets


class Training:
    """A model, its optimiser and its place in the data; saved and restored as one file."""

    def __init__(
        self,
        model: MarianMTModel,
        recipe: Recipe,
        everything: Examples,
        focus: Examples,
        device: str,
    ) -> None:
        self.model = model.to(device)
        self.recipe = recipe
        self.device = torch.device(device)
        self.average = Average(self.model, recipe.average_decay)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=recipe.peak_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self.step = 0
        self._everything, self._focus = everything, focus
        self._epoch, self._next_batch = 0, 0
        self._order = self._epoch_batches()

    def _epoch_batches(self) -> list[np.ndarray]:
        rng = np.random.default_rng([self.recipe.seed, self._epoch])
        return batches(*self._examples, self.recipe.batch_tokens, rng)

    @property
    def _examples(self) -> Examples:
        return self._everything if self.step < self.recipe.steps else self._focus

    def _take_batch(self) -> tuple[Tensor, Tensor]:
        if self._next_batch == len(self._order) or self.step == self.recipe.steps:
            self._epoch, self._next_batch = self._epoch + 1, 0
            self._order = self._epoch_batches()
        chosen = self._order[self._next_batch]
        self._next_batch += 1
        pad = self.model.config.pad_token_id
        source, target = (torch.from_numpy(side.padded(chosen, pad)) for side in self._examples)
        return source.to(self.device), target.to(self.device)

    def advance(self) -> tuple[float, int]:
        """Take one optimiser step; returns the summed loss and the number of target tokens."""
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        self.model.train()
        source, target = self._take_batch()
        count = int(target.ne(self.model.config.pad_token_id).sum())
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = token_loss(self.model, source, target, self.recipe.smoothing)
        torch.autograd.backward(loss / count)
        shared = self.model.model.shared.weight
        if shared.grad is not None:
            shared.grad[self.model.config.pad_token_id].zero_()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update(self.model, self.step)
        self.step += 1
        return float(loss.detach()), count

    def save(self, path: Path) -> None:
        """Write everything that resuming needs, atomically."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "recipe": asdict(self.recipe),
                "step": self.step,
                "epoch": self._epoch,
                "next_batch": self._next_batch,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.values,
            },
            partial,
        )
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Continue from `path`; refuses a checkpoint made by another recipe."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} was made by {state['recipe']}; remove it or use that recipe")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.values = state["average"]
        self.step, self._epoch = state["step"], state["epoch"]
        self._next_batch = state["next_batch"]
        self._order = self._epoch_batches()


def run(training: Training, checkpoint: Path, save_every: int, log_every: int = 50) -> None:
    """Train to the recipe's last step, logging progress and saving as it goes."""
    if checkpoint.exists():
        training.restore(checkpoint)
        logger.info("resumed at step %d", training.step)
    began, losses, counts = time.monotonic(), 0.0, 0
    last = training.recipe.steps + training.recipe.focus_steps
    while training.step < last:
        loss, count = training.advance()
        losses, counts = losses + loss, counts + count
        if training.step % log_every == 0:
            elapsed = time.monotonic() - began
            left_s = elapsed / log_every * (last - training.step)
            report = {
                "step": training.step,
                "loss": round(losses / counts, 4),
                "rate": round(training.recipe.rate(training.step), 6),
                "target_tokens_per_s": round(counts / elapsed),
                "left_min": round(left_s / 60, 1),
            }
            logger.info(json.dumps(report))
            began, losses, counts = time.monotonic(), 0.0, 0
        if training.step % save_every == 0:
            training.save(checkpoint)
    training.save(checkpoint)
