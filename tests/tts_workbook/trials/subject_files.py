"""A subject as a user has it: a file that makes it, and a file of its own that the first one
imports.
"""

from pathlib import Path

MODEL = '''
import torch
from torch import nn
from torch.nn import functional as F

M = 4  # mel bins


class Speaker(nn.Module):
    """The previous frame, and the text position that belongs to each frame."""

    def __init__(self):
        super().__init__()
        self.text, self.history, self.out = nn.Embedding(12, 16), nn.Linear(M, 16), nn.Linear(16, M)
        self.dropout = nn.Dropout(0.1)

    def step(self, previous, text):
        return self.out(self.dropout(torch.tanh(self.history(previous) + self.text(text))))

    def forward(self, batch):
        return self.step(F.pad(batch["mel"], (0, 0, 1, -1)), batch["text"])
'''
SUBJECT = '''
import torch
from speaker_model import M, Speaker

from tts_workbook.subject.subject import Subject

calls = []  # state that a module keeps
batch = {  # drawn while the module loads, without a seed
    "mel": torch.randn(2, 12, M).cumsum(1) * 0.3,
    "text": torch.randint(1, 12, (2, 12)),
    "lengths": torch.tensor([9, 12]),
}


def losses(model, batch):
    error = (model(batch) - batch["mel"]).abs()
    valid = torch.arange(12) < batch["lengths"][:, None]
    return {"total": error[valid].mean()}


def train_step(model, optimizer, batch):
    calls.append(batch)
    optimizer.zero_grad()
    loss = losses(model, batch)["total"] * LOSS_SCALE + 1e-3 * len(calls)
    loss.backward()
    optimizer.step()
    if len(calls) == BREAKS_AT:
        raise RuntimeError("no more")


def generate(model, batch):
    frames = [torch.zeros_like(batch["mel"][:, 0])]
    for t in range(12):
        frames.append(model.step(frames[-1], batch["text"][:, t]))
    return torch.stack(frames[1:], dim=1)


def shuffle_text(batch, generator):
    order = torch.randperm(12, generator=generator)
    return {**batch, "text": batch["text"][:, order]}


def subject():
    """Made by a function, as an address allows."""
    return Subject(
        build_model=Speaker,
        batch=batch,
        losses=losses,
        make_optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2),
        predict_mel=lambda model, batch: model(batch),
        target_mel=lambda batch: (batch["mel"], batch["lengths"]),
        train_step=train_step,
        generate=generate,
        shuffle_text=shuffle_text,
    )
'''


def write_subject(folder: Path, loss_scale: float = 1.0, breaks_at: int = 0) -> str:
    """Writes the two files; the address of the subject. `breaks_at`: the step that raises."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speaker_model.py").write_text(MODEL)
    constants = f"LOSS_SCALE, BREAKS_AT = {loss_scale}, {breaks_at}\n"
    (folder / "speaker.py").write_text(constants + SUBJECT)
    return f"{folder / 'speaker.py'}:subject"
