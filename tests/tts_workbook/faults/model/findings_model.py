"""A model of the shape that the findings are about: separate w_q, w_k, w_v in every layer, relative
positions, gated feed-forward, a length regulator in bare code, and no norm behind the encoder,
whose embedding is N(0, 1) times the root of the width.

Shapes: B clips, N phonemes, T frames, M mel bins, D width, H heads.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.planted.architecture import draw_setting
from tts_core.speech.batch import lengths_to_mask
from tts_workbook.subject.clip_data import ClipData, Parts, clipped_step, mean_l1
from tts_workbook.subject.subject import Subject

N_SYMBOLS, M = 80, 80
FURTHEST = 32  # places that a relative position tells apart


class Attention(nn.Module):
    """Several heads with projections of their own and a bias by distance."""

    def __init__(self, width, n_heads=2):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(width, width) for _ in range(4))
        self.distance = nn.Embedding(2 * FURTHEST + 1, n_heads)
        self.n_heads = n_heads

    def forward(self, x, memory, mask):
        b, t, d = x.shape

        def split(tensor):
            return tensor.view(b, -1, self.n_heads, d // self.n_heads).transpose(1, 2)

        q, k, v = split(self.w_q(x)), split(self.w_k(memory)), split(self.w_v(memory))
        apart = torch.arange(memory.shape[1])[None] - torch.arange(t)[:, None]
        bias = self.distance(apart.clamp(-FURTHEST, FURTHEST) + FURTHEST).permute(2, 0, 1)
        scores = q @ k.transpose(2, 3) / math.sqrt(d // self.n_heads) + bias
        read = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v
        return self.w_o(read.transpose(1, 2).reshape(b, t, d))


class GatedFeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(width, 2 * width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self, width, cross=False):
        super().__init__()
        self.self_attn, self.ffn = Attention(width), GatedFeedForward(width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross_attn = Attention(width) if cross else None
        self.norm_3 = nn.LayerNorm(width) if cross else None

    def forward(self, x, mask, memory=None, memory_mask=None):
        y = self.norm_1(x)
        x = x + self.self_attn(y, y, mask)
        if self.cross_attn is not None:
            x = x + self.cross_attn(self.norm_3(x), memory, memory_mask)
        return x + self.ffn(self.norm_2(x))


class Stack(nn.Module):
    def __init__(self, width, n_layers, cross=False):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, cross) for _ in range(n_layers))

    def forward(self, x, *rest):
        for layer in self.layers:
            x = layer(x, *rest)
        return x


class Findings(nn.Module):
    """`norm` puts the LayerNorm behind the encoder that the findings lack. The embedding is as
    large as that of `as_wide_as`: at 512 the memory of the findings.
    """

    def __init__(self, width=64, n_layers=2, norm=False, as_wide_as=512):
        super().__init__()
        self.embedding_scale = math.sqrt(as_wide_as)
        self.text_embedding = nn.Embedding(N_SYMBOLS, width)
        self.encoder = Stack(width, n_layers)
        self.encoder_norm = nn.LayerNorm(width) if norm else None
        self.mel_projection_in = nn.Linear(M, width)
        self.decoder = Stack(width, n_layers, cross=True)
        self.final_norm = nn.LayerNorm(width)
        self.mel_projection_out = nn.Linear(width, M)

    def encode(self, batch):
        mask = batch.phoneme_mask[:, None, None]
        x = self.text_embedding(batch.phonemes) * self.embedding_scale
        encoded = self.encoder(x, mask)
        return encoded if self.encoder_norm is None else self.encoder_norm(encoded)

    def expand(self, encoded, durations, n_frames):
        rows = [
            row.repeat_interleave(counts, dim=0)[:n_frames]
            for row, counts in zip(encoded, durations, strict=True)
        ]
        return torch.stack([F.pad(row, (0, 0, 0, n_frames - len(row))) for row in rows])

    def decode(self, history, memory, mask):
        t = history.shape[1]
        causal = torch.ones(t, t, dtype=torch.bool).tril()
        x = self.decoder(self.mel_projection_in(history), causal, memory, mask[:, None, None])
        return self.mel_projection_out(self.final_norm(x))

    def forward(self, batch, mel):
        memory = self.expand(self.encode(batch), batch.durations, mel.shape[1])
        mask = lengths_to_mask(batch.mel_lengths, mel.shape[1])
        return self.decode(F.pad(mel, (0, 0, 1, -1)), memory, mask)


def findings_subject(
    width=64, n_layers=2, norm=False, as_wide_as=512, lr=1e-3, batch_size=1, seconds=0.8
):
    """Over real speech, standardised per bin."""
    setting = draw_setting(0, max_seconds=seconds, batch_size=batch_size)
    data = ClipData.of(setting.clips, batch_size, 0, Parts())

    def losses(model, batch):
        target, lengths = data.target(batch)
        loss = mean_l1(model(batch, target), target, lengths)
        return {"mel": loss, "total": loss}

    @torch.no_grad()
    def generate(model, batch):
        target, _ = data.target(batch)
        made = torch.zeros_like(target[:, :0])
        memory = model.expand(model.encode(batch), batch.durations, target.shape[1])
        mask = lengths_to_mask(batch.mel_lengths, target.shape[1])
        for _ in range(target.shape[1]):
            history = F.pad(made, (0, 0, 1, 0))
            made = torch.cat([made, model.decode(history, memory, mask)[:, -1:]], dim=1)
        return made

    return Subject(
        build_model=lambda: Findings(width, n_layers, norm, as_wide_as),
        losses=losses,
        make_optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=lr),
        train_step=clipped_step(losses),
        predict_mel=lambda model, batch: model(batch, data.target(batch)[0]),
        generate=generate,
        **data.fields(),
    )
