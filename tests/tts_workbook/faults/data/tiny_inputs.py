"""A reader of a few thousand weights that takes text, a speaker and a pitch for each symbol; a
course of 96 steps takes half a second. What generation hands it is a part of the subject.

Shapes: B = 3 clips, N text positions, T = 2 N frames, M = 4 bins, D = 16.
"""

import torch
from torch import nn

from tts_workbook.lab.lab import Lab
from tts_workbook.subject.subject import Subject

M, D, FRAMES, STEPS = 4, 16, 2, 96
LENGTHS = (8, 6, 7)


class Reader(nn.Module):
    """Frames of each symbol from the symbol, the speaker and its pitch; no history."""

    def __init__(self):
        super().__init__()
        self.text, self.speakers = nn.Embedding(16, D, padding_idx=0), nn.Embedding(4, D)
        self.pitch, self.pitch_head = nn.Linear(1, D), nn.Linear(D, 1)
        self.body = nn.Sequential(nn.Linear(D, 32), nn.Tanh(), nn.Linear(32, FRAMES * M))

    def forward(self, text, speaker, pitch=None):
        hidden = self.text(text) + self.speakers(speaker)[:, None]
        predicted = self.pitch_head(hidden)[..., 0]
        used = predicted if pitch is None else pitch
        frames = self.body(hidden + self.pitch(used[..., None]))
        return frames.reshape(len(text), -1, M), predicted


def make_batch():
    """Clips whose frames follow from symbol, speaker and pitch."""
    generator = torch.Generator().manual_seed(0)
    n_places = max(LENGTHS)
    valid = torch.arange(n_places) < torch.tensor(LENGTHS)[:, None]
    text = torch.randint(1, 12, (len(LENGTHS), n_places), generator=generator) * valid
    speaker = torch.tensor([1, 2, 3])
    of_symbol, of_speaker = (torch.randn(n, FRAMES * M, generator=generator) for n in (16, 4))
    pitch_of = torch.randn(16, generator=generator)
    pitch = pitch_of[text] * valid
    frames = of_symbol[text] + of_speaker[speaker][:, None] + 0.5 * pitch[..., None]
    mel = frames.reshape(len(text), -1, M) * valid.repeat_interleave(FRAMES, dim=1)[..., None]
    return {
        "text": text,
        "speaker": speaker,
        "pitch": pitch,
        "mel": mel,
        "lengths": FRAMES * torch.tensor(LENGTHS),
    }


def losses(model, batch):
    mel, predicted = model(batch["text"], batch["speaker"], batch["pitch"])
    valid = torch.arange(mel.shape[1]) < batch["lengths"][:, None]
    error = (mel - batch["mel"]).abs()[valid].mean()
    places = batch["text"] > 0
    pitch = (predicted - batch["pitch"]).square()[places].mean()
    return {"mel": error, "pitch": pitch, "total": error + pitch}


def shuffle_text(batch, generator):
    text = batch["text"].clone()
    for row, length in zip(text, LENGTHS, strict=True):
        row[:length] = row[torch.randperm(length, generator=generator)]
    return {**batch, "text": text}


def as_it_is(tensor):
    return tensor


def subject(
    read=as_it_is, speak_as=as_it_is, sing=None, batch=None, clip_by_clip=True, **fields
) -> Subject:
    """A clean reader; generation maps ids by `read`, speakers by `speak_as`, and takes the pitch
    that `sing(model, batch)` gives in place of its prediction.
    """

    def spoken(model, batch):
        pitch = None if sing is None else sing(model, batch)
        return model(read(batch["text"]), speak_as(batch["speaker"]), pitch)[0]

    def infer(model, batch):
        mels = []
        for row, length in enumerate(LENGTHS):
            own = {name: value[row : row + 1] for name, value in batch.items()}
            own["text"], own["pitch"] = own["text"][:, :length], own["pitch"][:, :length]
            mels.append(spoken(model, own)[0])
        return mels

    def predict_mel(model, batch):
        return model(batch["text"], batch["speaker"], batch["pitch"])[0]

    parts = dict(
        build_model=Reader,
        batch=make_batch() if batch is None else batch,
        losses=losses,
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.02),
        predict_mel=predict_mel,
        target_mel=lambda batch: (batch["mel"], batch["lengths"]),
        generate=spoken,
        infer=infer if clip_by_clip else None,
        shuffle_text=shuffle_text,
    )
    return Subject(**{**parts, **fields})


def lab(**parts) -> Lab:
    """A lab around it."""
    return Lab(subject(**parts), steps=STEPS)
