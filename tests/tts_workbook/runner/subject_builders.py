"""A subject of a few hundred weights as a user's two files, with and without its optional parts; a
call takes 1 ms.
"""

import shutil
from pathlib import Path

from tests.conftest import ROOT

# `parts` is the file beside it, which it imports; the model is that of
# tests/tts_workbook/diagnosis/tiny_subject.py.
SOURCE = '''
from dataclasses import replace
import numpy as np
import torch
from torch.nn import functional as F
import parts

HZ, HOP = 16_000, 1024

def with_mel(batch, mel):
    return {**batch, "mel": mel, "lengths": batch["lengths"].clamp(max=mel.shape[1])}

def next_frame(model, batch, history):
    """Frame t from the frames before it, by the model's own forward."""
    return model(with_mel(batch, F.pad(history, (0, 0, 0, 1))))[:, -1].float()

def from_one_frame_ago(model, batch, history):
    return next_frame(model, batch, history[:, :-1] if history.shape[1] > 1 else history)

def generate(model, batch):
    history = batch["mel"][:, :0]
    for _ in range(batch["mel"].shape[1]):
        history = torch.cat([history, next_frame(model, batch, history)[:, None]], dim=1)
    return history

def shuffle_text(batch, generator):
    """The model has no positions, so that the order of the text is nothing to it: each clip gets
    the other's.
    """
    return {**batch, "text": batch["text"].flip(0)}

def vocode(mel):
    level = np.repeat(np.exp(mel.mean(dim=1).numpy()), HOP)
    return (0.02 * level * np.sin(np.arange(len(level)) ** 1.5 / 400)).astype(np.float32), HZ

def summed(model, batch):
    """A sum over clips: twice the clips, twice the loss."""
    terms = parts.losses(model, batch)
    return {"mel": terms["mel"], "total": terms["total"] * len(batch["lengths"])}

def over_padding(model, batch):
    error = (model(batch).float() - batch["mel"]).abs().mean()
    return {"mel": error, "total": error}

class WithSpare(parts.Tiny):
    """A layer that nothing runs through."""
    def __init__(self):
        super().__init__()
        self.spare = torch.nn.Linear(4, 4)

class WithHidden(parts.Tiny):
    """Layers in a plain list: no state dict holds them."""
    def __init__(self):
        super().__init__()
        self.hidden = [self._modules.pop("out")]
    def __getattr__(self, name):
        if name == "out" and "hidden" in vars(self):
            return self.hidden[0]
        return super().__getattr__(name)

def audio(batch):
    lengths = batch["lengths"].tolist()
    return [vocode(mel[:length]) for mel, length in zip(batch["mel"], lengths)]

def full(**changes):
    return replace(parts.subject(), **{**dict(
        generate=generate, continue_from=next_frame, shuffle_text=shuffle_text, vocode=vocode,
        audio=audio, pad=lambda batch, n: {**batch, "mel": F.pad(batch["mel"], (0, 0, 0, n))}),
        **changes})

subject = full()
bare = replace(parts.subject(), duplicate=None)
sums_over_clips = full(losses=summed)
counts_padding = full(losses=over_padding)
spare = full(build_model=WithSpare)
hidden = full(build_model=WithHidden, make_optimizer=lambda model: torch.optim.SGD(
    [*model.parameters(), *model.hidden[0].parameters()], lr=0.05))
wrong_layout = full(continue_from=from_one_frame_ago)
slow = full(make_optimizer=lambda model: torch.optim.SGD(
    model.parameters(), lr=0.004, weight_decay=0.01))
diverges = full(make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e30))
not_finite = full(losses=lambda model, batch: {
    name: term * float("nan") for name, term in parts.losses(model, batch).items()})
breaks_off = full(
    duplicate=lambda batch, k: batch["nothing"],
    pad=lambda batch, n: {**batch, "mel": batch["mel"] * float("inf")},
    continue_from=lambda model, batch, history: history[:, 99])
no_mel = full(predict_mel=lambda model, batch: batch["text"])
number = 3
'''


def write_subject(folder: Path) -> Path:
    """`folder`/mine.py with the subjects above and `folder`/parts.py beside it; returns mine.py."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(
        ROOT / "tests" / "tts_workbook" / "diagnosis" / "tiny_subject.py", folder / "parts.py"
    )
    (folder / "mine.py").write_text(SOURCE)
    return folder / "mine.py"
