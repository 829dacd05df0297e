"""A model of a few hundred weights with the parts of a Subject that the audit of the train step
needs; a call takes 1 ms.

Shapes: B clips, N text positions, T frames, M = 4 bins, D = 16.
"""

import torch
from torch import nn
from torch.nn import functional as F

from tts_workbook.lab.lab import Lab
from tts_workbook.subject.subject import Subject

M, D = 4, 16


class Tiny(nn.Module):
    """Attention from the previous frames to the text; `kept`, `mask_value`, `batch_norm` are where
    faults go.
    """

    def __init__(self, dropout=0.0, batch_norm=False, mask_value=float("-inf")):
        super().__init__()
        self.text, self.history = nn.Embedding(12, D), nn.Linear(M, D)
        self.encoder = nn.Sequential(
            nn.Linear(D, D), nn.Tanh(), nn.Dropout(dropout), nn.Linear(D, D)
        )
        self.norm = nn.BatchNorm1d(D) if batch_norm else nn.Identity()
        self.out = nn.Linear(D, M)
        self.mask_value = mask_value

    def encode(self, text):
        return self.encoder(self.text(text))

    def scores(self, query, memory, mask):
        return (query @ memory.transpose(1, 2)).masked_fill(~mask[:, None], self.mask_value)

    def forward(self, batch):
        memory = self.encode(batch["text"])
        shifted = F.pad(batch["mel"], (0, 0, 1, -1)).to(self.history.weight.dtype)
        query = self.history(shifted)
        read = self.scores(query, memory, batch["text"] > 0).softmax(-1).to(memory.dtype) @ memory
        hidden = self.norm((query + read).transpose(1, 2)).transpose(1, 2)
        return self.out(hidden.tanh())


def make_batch(lengths=(8, 12), seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = max(lengths)
    mel = torch.randn(len(lengths), frames, M, generator=generator).cumsum(1) * 0.3
    text = torch.randint(1, 12, (len(lengths), 6), generator=generator)
    text[:, 5:] = 0
    valid = torch.arange(frames) < torch.tensor(lengths)[:, None]
    return {"text": text, "mel": mel * valid[..., None], "lengths": torch.tensor(lengths)}


def split(batch, size=1):
    """Micro-batches of `size` clips, cut to their frames."""
    parts = []
    for start in range(0, len(batch["lengths"]), size):
        lengths = batch["lengths"][start : start + size]
        parts.append(
            {
                "text": batch["text"][start : start + size],
                "lengths": lengths,
                "mel": batch["mel"][start : start + size, : int(lengths.max())],
            }
        )
    return parts


def losses(model, batch):
    """Mean absolute error over the valid frames."""
    error = (model(batch).float() - batch["mel"]).abs()
    frames = torch.arange(error.shape[1], device=error.device)
    valid = frames < batch["lengths"][:, None]
    total = error[valid].mean()
    return {"mel": total, "total": total}


def sgd(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)


def subject(
    build=Tiny, train_step=None, make_optimizer=sgd, losses=losses, lengths=(8, 12), **fields
):
    """A clean subject, with what is given instead of its own."""
    return Subject(
        build_model=build,
        batch=make_batch(lengths),
        losses=losses,
        make_optimizer=make_optimizer,
        predict_mel=lambda model, batch: model(batch).float(),
        target_mel=lambda batch: (batch["mel"], batch["lengths"]),
        train_step=train_step,
        duplicate=lambda batch, k: {name: torch.cat([value] * k) for name, value in batch.items()},
        **fields,
    )


def lab(*args, n_steps=120, **kwargs):
    """A lab around `subject(...)` whose courses are short."""
    found = Lab(subject(*args, **kwargs))
    found.n_steps = n_steps
    return found
