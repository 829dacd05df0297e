"""A speaker of 2,000 weights whose frames hang on its text; a course of 48 steps takes 0.2 s.
Faults go in as other parts.

Shapes: B clips, N text positions, T = 2 N frames, M = 4 bins, D = 16.
"""

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_subject import D, M, Tiny, subject
from tts_workbook.faults.examine import examine
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab

FRAMES = 2  # of every text position
STEPS = 48


class Positions(nn.Module):
    """Sinusoids of three quarters of the embedding's size, times `gain`, added to whatever comes
    in.
    """

    def __init__(self, gain=1.0):
        super().__init__()
        place, rate = torch.arange(64)[:, None], 0.5 ** torch.arange(D // 2)
        self.register_buffer(
            "table", gain * torch.cat([(place * rate).sin(), (place * rate).cos()], dim=1)
        )

    def forward(self, x):
        return x + self.table[: x.shape[1]]


class SelfAttention(nn.Module):
    """Mixes places and cannot tell their order."""

    def __init__(self):
        super().__init__()
        self.query, self.value = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x):
        return x + (self.query(x) @ x.transpose(1, 2) / D**0.5).softmax(-1) @ self.value(x)


class Gain(nn.Module):
    """Multiplies by a number."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        return self.gain * x


class Branch(nn.Module):
    """A residual feed-forward branch, normalised before or not, times `gain`."""

    def __init__(self, gain=1.0, norm=False):
        super().__init__()
        self.norm, self.up, self.down = (
            nn.LayerNorm(D) if norm else nn.Identity(),
            nn.Linear(D, D),
            nn.Linear(D, D),
        )
        self.gain = gain

    def forward(self, x):
        return x + self.gain * self.down(self.up(self.norm(x)).relu())


class Speaker(Tiny):
    """Text, positions, a module that mixes places, the encoder and its norm; then what it says of
    the frames before, a stack of layers, and the output.
    """

    def __init__(
        self,
        positions=Positions,
        mix=SelfAttention,
        memory=lambda: nn.LayerNorm(D),
        prenet=nn.Identity,
        layers=tuple,
        **options,
    ):
        super().__init__(**options)
        self.positions, self.mix, self.memory, self.prenet = positions(), mix(), memory(), prenet()
        self.layers = nn.ModuleList(layers())

    def encode(self, text):
        return self.memory(self.encoder(self.mix(self.positions(self.text(text)))))

    def forward(self, batch):
        said = self.prenet(self.history(F.pad(batch["mel"], (0, 0, 1, -1))))
        hidden = said + self.encode(batch["text"]).repeat_interleave(FRAMES, dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.out(self.norm(hidden.transpose(1, 2)).transpose(1, 2).tanh())


def spoken(mean=0.0, deviation=1.0, n_places=8):
    """Two clips whose frames follow from their text, at this mean and scale."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(1, 12, (2, n_places), generator=generator)
    table, within = (
        torch.randn(12, M, generator=generator),
        torch.randn(FRAMES, M, generator=generator),
    )
    mel = table[text].repeat_interleave(FRAMES, dim=1) + 0.5 * within.repeat(n_places, 1)
    return {
        "text": text,
        "mel": mean + deviation * mel,
        "lengths": torch.full((2,), n_places * FRAMES),
    }


def adam(lr=0.01, decay=0.0):
    """AdamW at this rate and decay."""
    return lambda model: torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)


def with_parts(kind=Speaker, **parts):
    """A build_model of this class with these parts."""
    return lambda: kind(**parts)


def speaker_lab(
    build=Speaker, batch=None, steps=STEPS, make_optimizer=None, minutes=None, **fields
):
    """A lab around a clean speaker, with what is given instead of its own."""
    clean = subject(build=build, make_optimizer=make_optimizer or adam(), **fields)
    own = replace(clean, batch=spoken() if batch is None else batch)
    return Lab(own, steps=steps, minutes=minutes)


def findings(lab, *names):
    """Cause -> its strongest finding, of these causes."""
    order = ("confirmed", "suspected", "question", "excluded", "undecided", "not applicable")
    found = [examine(CAUSES[name], lab) for name in names]
    return {
        finding.cause: finding
        for finding in sorted(found, key=lambda finding: -order.index(finding.level))
    }


def blamed(found):
    """Confirmed and suspected causes."""
    return {
        cause for cause, finding in found.items() if finding.level in ("confirmed", "suspected")
    }
