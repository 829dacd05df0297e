"""A small VITS that speaks mels: a prior from text, a posterior from the mel, a normalising flow
between them, and a decoder from the latent to the mel (Kim et al. 2021).

The alignment is given: each symbol has its frames, and a predictor learns them for inference.
Shapes: B batch, N symbols, T frames, M mel bins, D width, Z latent channels. Inside, sequences are
(B, channels, length).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.vits_like_data import BINS, TABLE, SpeechBatch, mask_of

WIDTH, LATENT, VOICE = 64, 16, 16
WAVES = 8  # cosines that say how far a symbol is spoken
TEMPERATURE = 0.4  # of the noise while speaking, as a share of the prior's deviation


@dataclass(frozen=True)
class Latents:
    """What the training pass makes: the mel, and both ends of the flow."""

    mel: Tensor  # (B, T, M)
    prior: tuple[Tensor, Tensor]  # mean and log-deviation (B, Z, T)
    posterior: tuple[Tensor, Tensor]  # mean and log-deviation (B, Z, T)
    flowed: Tensor  # (B, Z, T) the posterior's sample at the prior's end of the flow
    log_det: Tensor  # (B, T)
    log_frames: Tensor  # (B, N) ln(1 + frames)


class Noise(nn.Module):
    """A draw from the unit normal in the shape of `like`, times `scale`; it draws in both modes."""

    def forward(self, like: Tensor, scale: float = 1.0) -> Tensor:
        return scale * torch.randn_like(like)


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm over what is valid: (B, C, T), (B, T) -> (B, C, T), zero elsewhere."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows = x.transpose(1, 2)
        out = torch.zeros_like(rows)
        out[mask] = super().forward(rows[mask].to(self.weight.dtype)).to(out.dtype)
        return out.transpose(1, 2)


class SelfAttention(nn.Module):
    """Two heads over the symbols (B, N, D), padded ones hidden."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        shape = (*x.shape[:2], 3, self.heads, -1)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        seen = self.hide(scores, mask).softmax(dim=-1) @ value
        return self.out(seen.transpose(1, 2).flatten(2))

    def hide(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Scores (B, H, N, N) and mask (B, N) -> scores without padded keys."""
        return scores.masked_fill(~mask[:, None, None], float("-inf"))


class TextLayer(nn.Module):
    """Self-attention and a convolutional feed-forward, each with its norm behind the sum."""

    def __init__(self, width: int, dropout: float, attention: type[SelfAttention]) -> None:
        super().__init__()
        self.attention = attention(width)
        self.first, self.second = nn.Conv1d(width, width, 3, padding=1), nn.Linear(width, width)
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm_attention(x + self.drop(self.attention(x, mask)))
        hidden = self.first((x * mask[..., None]).transpose(1, 2)).relu().transpose(1, 2)
        return self.norm_feed(x + self.drop(self.second(hidden)))


class TextEncoder(nn.Module):
    """Symbols (B, N) -> (B, N, D)."""

    layer_kind: type[TextLayer] = TextLayer
    attention_kind: type[SelfAttention] = SelfAttention

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.symbols = nn.Embedding(len(TABLE), width)
        self.layers = nn.ModuleList(
            [self.layer_kind(width, dropout, self.attention_kind) for _ in range(2)]
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.placed(self.embed(ids, mask))
        for layer in self.layers:
            x = layer(x, mask)
        return x * mask[..., None]

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.symbols(ids) * mask[..., None]

    def placed(self, x: Tensor) -> Tensor:
        return x + sinusoids(x.shape[1], x.shape[2]).to(x)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (length, width) of Vaswani et al. 2017."""
    rates = torch.exp(-math.log(1e4) * torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class GatedStack(nn.Module):
    """Gated dilated convolutions with residual sums (WaveNet), told the voice: (B, C, T)."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.voice = nn.Linear(VOICE, 2 * width * layers)
        self.convs = nn.ModuleList(
            [nn.Conv1d(width, 2 * width, 3, padding=2**n, dilation=2**n) for n in range(layers)]
        )
        self.outs = nn.ModuleList([nn.Conv1d(width, width, 1) for _ in range(layers)])
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
        told = self.voice(voice)[..., None].chunk(len(self.convs), dim=1)
        for conv, out, bias in zip(self.convs, self.outs, told, strict=True):
            gate, content = (conv(x * mask[:, None]) + bias).chunk(2, dim=1)
            x = x + out(self.drop(gate.sigmoid() * content.tanh()))
        return x * mask[:, None]


class Posterior(nn.Module):
    """Mel (B, M, T) -> mean and log-deviation of the latent (B, Z, T)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Conv1d(BINS, WIDTH, 1)
        self.stack = GatedStack(WIDTH, 2, dropout)
        self.leave = nn.Conv1d(WIDTH, 2 * LATENT, 1)

    def forward(self, mel: Tensor, mask: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.stack(self.enter(mel), mask, voice)
        mean, log_deviation = self.leave(hidden).float().chunk(2, dim=1)
        return mean, log_deviation.clamp(-7, 4)


class Prior(nn.Module):
    """What the stretched text says of the latent: (B, D, T) -> mean and log-deviation (B, Z, T)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stack = GatedStack(WIDTH, 2, dropout)
        self.leave = nn.Conv1d(WIDTH, 2 * LATENT, 1)

    def forward(self, x: Tensor, mask: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_deviation = self.leave(self.stack(x, mask, voice)).float().chunk(2, dim=1)
        return mean, log_deviation.clamp(-7, 4)


class Coupling(nn.Module):
    """Half of the channels shifts and scales the other half; then the halves change places. Its
    last layer starts at zero, so that a fresh flow changes nothing.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Conv1d(LATENT // 2, 32, 1)
        self.stack = GatedStack(32, 1, dropout)
        self.leave = nn.Conv1d(32, LATENT, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def parameters_of(self, kept: Tensor, mask: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log-scale (B, Z / 2, T)."""
        out = self.leave(self.stack(self.enter(kept), mask, voice)).float()
        shift, log_scale = (out * mask[:, None]).chunk(2, dim=1)
        return shift, log_scale.tanh()

    def forward(self, x: Tensor, mask: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Z, T) -> the same, and the logarithm of the determinant (B, T)."""
        kept, moved = x.chunk(2, dim=1)
        shift, log_scale = self.parameters_of(kept, mask, voice)
        return torch.cat([moved * log_scale.exp() + shift, kept], dim=1), log_scale.sum(dim=1)

    def back(self, x: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
        """The inverse of `forward`."""
        moved, kept = x.chunk(2, dim=1)
        shift, log_scale = self.parameters_of(kept, mask, voice)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], dim=1)


class Flow(nn.Module):
    """Couplings from the posterior's latent to the prior's, and back."""

    def __init__(self, dropout: float, tied: bool) -> None:
        super().__init__()
        self.couplings = nn.ModuleList([Coupling(dropout) for _ in range(4)])
        if tied:
            self.couplings[2], self.couplings[3] = self.couplings[0], self.couplings[1]

    def forward(self, x: Tensor, mask: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x), x.shape[2])
        for coupling in self.couplings:
            x, change = coupling(x, mask, voice)
            log_det = log_det + change
        return x, log_det

    def back(self, x: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
        for coupling in reversed(self.couplings):
            x = coupling.back(x, mask, voice)
        return x


class DecoderBlock(nn.Module):
    """Two convolutions with a residual sum, BatchNorm in front of each: (B, D, T)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([MaskedBatchNorm(width), MaskedBatchNorm(width)])
        self.convs = nn.ModuleList([nn.Conv1d(width, width, 3, padding=1) for _ in range(2)])
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        hidden = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            hidden = conv(F.leaky_relu(norm(hidden, mask), 0.1) * mask[:, None])
        return x + self.drop(hidden)


class Decoder(nn.Module):
    """Latent (B, Z, T) -> mel (B, T, M)."""

    block_kind: type[nn.Module] = DecoderBlock

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Conv1d(LATENT, WIDTH, 3, padding=1)
        self.voice = nn.Linear(VOICE, WIDTH)
        self.blocks = nn.ModuleList([self.block_kind(WIDTH, dropout) for _ in range(2)])
        self.leave = nn.Conv1d(WIDTH, BINS, 1)

    def forward(self, latent: Tensor, mask: Tensor, voice: Tensor) -> Tensor:
        x = self.enter(latent * mask[:, None]) + self.voice(voice)[..., None]
        for block in self.blocks:
            x = block(x, mask)
        return self.leave(x * mask[:, None]).transpose(1, 2)


class FramePredictor(nn.Module):
    """Text (B, N, D) -> ln(1 + frames) (B, N)."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.drop, self.leave = nn.Dropout(dropout), nn.Linear(WIDTH, 1)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        hidden = self.conv((text * mask[..., None]).transpose(1, 2)).relu().transpose(1, 2)
        return self.leave(self.drop(hidden)).squeeze(-1)


class LatentSpeech(nn.Module):
    """The whole model; the kinds of its parts are class attributes."""

    text_kind, posterior_kind, prior_kind = TextEncoder, Posterior, Prior
    flow_kind, decoder_kind = Flow, Decoder

    def __init__(self, dropout: float = 0.0, tied: bool = False) -> None:
        super().__init__()
        self.text = self.text_kind(WIDTH, dropout)
        self.predictor = FramePredictor(dropout)
        self.progress = nn.Linear(WAVES, WIDTH)
        self.prior = self.prior_kind(dropout)
        self.posterior = self.posterior_kind(dropout)
        self.flow = self.flow_kind(dropout, tied)
        self.decoder = self.decoder_kind(dropout)
        self.noise = Noise()

    def read(self, batch: SpeechBatch) -> Tensor:
        """Text (B, N, D)."""
        return self.text(batch.ids, batch.id_mask)

    def predict_frames(self, text: Tensor, mask: Tensor) -> Tensor:
        """ln(1 + frames) (B, N). As in VITS, this does not teach the text encoder."""
        return self.predictor(text.detach(), mask)

    def stretch(self, text: Tensor, frames: Tensor, length: int) -> Tensor:
        """(B, N, D), (B, N) -> (B, D, length): each symbol for its frames, and how far it is
        spoken; what lies behind the last symbol goes on with it.
        """
        ends = frames.cumsum(1)
        now = torch.arange(length, device=text.device).expand(len(text), -1).contiguous()
        now = torch.minimum(now, ends[:, -1:] - 1).clamp(min=0)
        index = torch.searchsorted(ends, now, right=True).clamp(max=frames.shape[1] - 1)
        begun = now - (ends - frames).gather(1, index)
        share = (begun + 0.5) / frames.gather(1, index).clamp(min=1)
        waves = torch.cos(torch.pi * share[..., None] * torch.arange(WAVES, device=text.device))
        held = text.gather(1, index[..., None].expand(-1, -1, text.shape[2]))
        return (held + self.progress(waves.to(text))).transpose(1, 2)

    def expect(self, text: Tensor, batch: SpeechBatch, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The prior (B, Z, T) of a batch whose frames are known."""
        stretched = self.stretch(text, batch.frames, mask.shape[1])
        return self.prior(stretched, mask, batch.conditions["voice"])

    def sample(self, mean: Tensor, log_deviation: Tensor) -> Tensor:
        """The posterior's latent: drawn in training, its mean in evaluation."""
        if not self.training:
            return mean
        return mean + self.noise(mean) * log_deviation.exp()

    def forward(self, batch: SpeechBatch) -> Latents:
        """The training pass: the mel through the posterior, and what the text says of it."""
        mask, voice = batch.frame_mask, batch.conditions["voice"]
        text = self.read(batch)
        prior = self.expect(text, batch, mask)
        posterior = self.posterior(self.heard(batch), mask, voice)
        latent = self.sample(*posterior)
        flowed, log_det = self.flow(latent, mask, voice)
        return Latents(
            mel=self.decoder(latent, mask, voice),
            prior=prior,
            posterior=posterior,
            flowed=flowed,
            log_det=log_det,
            log_frames=self.predict_frames(text, batch.id_mask),
        )

    def heard(self, batch: SpeechBatch) -> Tensor:
        """What the posterior hears: (B, M, T)."""
        return batch.mel.transpose(1, 2)

    def speak(self, batch: SpeechBatch, length: int) -> Tensor:
        """(B, length, M) from text, voice and frames alone: a draw from the prior, backwards
        through the flow. Reads neither the mel nor its lengths.
        """
        mask = mask_of(batch.frames.sum(dim=1).clamp(max=length), length)
        voice = batch.conditions["voice"]
        mean, log_deviation = self.expect(self.read(batch), batch, mask)
        drawn = mean + self.noise(mean, TEMPERATURE) * log_deviation.exp()
        return self.decoder(self.flow.back(drawn, mask, voice), mask, voice)

    def count_frames(self, log_frames: Tensor) -> Tensor:
        """ln(1 + frames) -> whole frames, at least one."""
        return log_frames.exp().sub(1).round().long().clamp(1, 100)
