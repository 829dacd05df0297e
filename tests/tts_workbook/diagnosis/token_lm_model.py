"""A decoder-only language model that speaks: text and quantised mel frames in one causal sequence
(after VALL-E, with a product quantiser in the place of a neural codec).

The sequence of a clip is [voice, symbol 1 … symbol N, start, frame 1 … frame T]; the place of
`start` says frame 1, that of frame T says the end. Each band of a frame is one of K codes. Shapes:
B batch, N symbols, T frames, M mel bins, G bands, K codes of a band, D width, S places, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.tts_workbook.diagnosis.vits_like_data import TABLE, SpeechBatch, mask_of

WIDTH, HEADS, LAYERS = 96, 4, 3
BANDS, CODES = 10, 32
VOICES = 4
READERS = HEADS // 2  # heads of each block that see the symbols alone
LONGEST = 12  # frames for each symbol at most, in inference

Cache = list[tuple[Tensor, Tensor]]  # keys and values (B, H, S, D / H) of each layer


@dataclass(frozen=True)
class Spoken:
    """What the model says at the places of `start` and of all frames."""

    logits: Tensor  # (B, T + 1, G, K)
    end: Tensor  # (B, T + 1) logit of the end, one more class of the first band
    # (B, T + 1, N) attention to the symbols, mean over the first block's heads that read
    glance: Tensor


# --- the quantiser --------------------------------------------------------------------------------


def codebook_of(frames: Tensor, rounds: int = 12) -> Tensor:
    """k-means of each band over frames (F, M) -> (G, K, M / G). Starts from frames evenly spaced in
    the order of their level, so that the same frames give the same codes.
    """
    codebook = []
    for band in frames.view(len(frames), BANDS, -1).unbind(dim=1):
        order = band.mean(dim=1).argsort()
        first = torch.linspace(0, len(order) - 1, CODES).round().long()
        centres = band[order[first]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(band, centres).argmin(dim=1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, band)
            counts = nearest.bincount(minlength=CODES)[:, None]
            centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        codebook.append(centres)
    return torch.stack(codebook)


def nearest_codes(mel: Tensor, codebook: Tensor) -> Tensor:
    """(B, T, M) -> codes (B, T, G)."""
    bands = mel.float().unflatten(2, (BANDS, -1)).permute(2, 0, 1, 3).flatten(1, 2)
    distances = torch.cdist(bands, codebook.float())
    return distances.argmin(dim=2).unflatten(1, mel.shape[:2]).permute(1, 2, 0)


# --- the model ------------------------------------------------------------------------------------


class CausalAttention(nn.Module):
    """Attention over a sequence, or over what is new of it behind a cache."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, seen: Tensor, before: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """(B, S, D), seen (B, 1 or H, S, S') True where a place may look, keys and values of the
        places before -> (B, S, D), weights (B, H, S, S'), keys and values of all.
        """
        shape = (*x.shape[:2], 3, HEADS, -1)
        query, key, value = self.query_key_value(x).view(shape).permute(2, 0, 3, 1, 4)
        if before is not None:
            key = torch.cat([before[0], key], dim=2)
            value = torch.cat([before[1], value], dim=2)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = self.hide(scores, seen).softmax(dim=-1)
        mixed = (self.drop(weights).to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return self.out(mixed), weights, (key, value)

    def hide(self, scores: Tensor, seen: Tensor) -> Tensor:
        """Scores (B, H, S, S') without what may not be seen."""
        return scores.masked_fill(~seen, float("-inf"))


class FeedForward(nn.Module):
    """Two layers with a rectifier."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.drop(self.up(x).relu()))


class Block(nn.Module):
    """Attention and feed-forward, the norm in front of each."""

    attention_kind: type[CausalAttention] = CausalAttention
    feed_kind: type[FeedForward] = FeedForward

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.feed = self.attention_kind(dropout), self.feed_kind(dropout)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, seen: Tensor, before: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        mixed, weights, kept = self.attention(self.norm_attention(x), seen, before)
        x = x + self.drop(mixed)
        return x + self.drop(self.feed(self.norm_feed(x))), weights, kept


class TextPrenet(nn.Module):
    """Symbols (B, N) -> (B, N, D): an embedding and a convolution over the symbols around."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.symbols = nn.Embedding(len(TABLE), WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.norm, self.drop = nn.LayerNorm(WIDTH), nn.Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.symbols(ids) * mask[..., None]
        around = self.conv(x.transpose(1, 2)).relu().transpose(1, 2)
        return self.norm(x + self.drop(around))


def waves(places: Tensor) -> Tensor:
    """Places (S,) -> sinusoidal positions (S, D)."""
    rates = torch.exp(-math.log(1e4) * torch.arange(0, WIDTH, 2, device=places.device) / WIDTH)
    angles = places[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TokenLM(nn.Module):
    """The language model; its codebook (G, K, M / G) is a buffer, made from the data beforehand."""

    block_kind: type[Block] = Block
    text_kind: type[TextPrenet] = TextPrenet

    def __init__(self, codebook: Tensor, dropout: float = 0.0, tied: bool = False) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.clone())
        self.text = self.text_kind(dropout)
        self.voices, self.rate = nn.Embedding(VOICES, WIDTH), nn.Linear(1, WIDTH)
        self.codes = nn.Embedding(BANDS * CODES, WIDTH)
        nn.init.normal_(self.codes.weight, std=BANDS**-0.5)
        self.start = nn.Parameter(torch.randn(WIDTH) * 0.5)
        self.blocks = nn.ModuleList([self.block_kind(dropout) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head, self.end = nn.Linear(WIDTH, BANDS * CODES), nn.Linear(WIDTH, 1)
        if tied:
            self.head.weight = self.codes.weight

    # what goes in

    def quantise(self, mel: Tensor) -> Tensor:
        """(B, T, M) -> codes (B, T, G)."""
        return nearest_codes(mel, self.codebook)

    def embed_codes(self, codes: Tensor, first: int = 0) -> Tensor:
        """Codes (B, T, G) of frames number `first` on -> (B, T, D); `start` is place 0."""
        shift = CODES * torch.arange(BANDS, device=codes.device)
        places = torch.arange(first + 1, first + 1 + codes.shape[1], device=codes.device)
        return self.codes(codes + shift).sum(dim=2) + self.placed_frames(places)

    def placed_frames(self, places: Tensor) -> Tensor:
        return waves(places)

    def placed_text(self, places: Tensor) -> Tensor:
        return waves(places)

    def voice(self, batch: SpeechBatch) -> Tensor:
        """Speaker and rate (B, 1, D): the first place, and part of every frame's."""
        rate = self.rate(batch.conditions["rate"][:, None])
        return (self.voices(batch.conditions["speaker"]) + rate)[:, None]

    def prefix(self, batch: SpeechBatch) -> tuple[Tensor, Tensor]:
        """Voice and text (B, 1 + N, D), and where they are valid (B, 1 + N)."""
        text = self.text(batch.ids, batch.id_mask)
        places = torch.arange(text.shape[1], device=text.device)
        text = text + self.placed_text(places).to(text)
        valid = torch.cat([torch.ones_like(batch.id_mask[:, :1]), batch.id_mask], dim=1)
        return torch.cat([self.voice(batch).to(text), text], dim=1), valid

    def begin(self, size: int) -> Tensor:
        """The place of `start` (B, 1, D)."""
        return (self.start + self.placed_frames(torch.zeros(1))[0]).expand(size, 1, -1)

    def told(self, codes: Tensor) -> Tensor:
        """What the places of frames 1 to T + 1 hear: (B, T, G) -> (B, T + 1, D), the frame before
        each.
        """
        return torch.cat([self.begin(len(codes)), self.embed_codes(codes)], dim=1)

    # what comes out

    def seen(self, valid: Tensor) -> Tensor:
        """Valid places (B, S) -> (B, S, S): those before, and itself."""
        size = valid.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool, device=valid.device).tril()
        return causal & valid[:, None]

    def narrow(self, seen: Tensor, n_text: int, cached: bool) -> Tensor:
        """What each head of a block sees (B, H, S, S'): half of them the symbols alone, so
        that there is somebody who reads. The voice, with nothing before it, sees itself.
        """
        heads = seen[:, None].expand(-1, HEADS, -1, -1).clone()
        heads[:, :READERS, :, n_text:] = False
        heads[:, :READERS, 0 if cached else 1 :, 0] = False
        return heads

    def run(
        self, x: Tensor, seen: Tensor, n_text: int, cache: Cache | None = None
    ) -> tuple[Tensor, Tensor, Cache]:
        """Through all blocks: (B, S, D) -> the same, the weights of those who read
        (B, H / 2, S, S'), and the cache."""
        kept: Cache = []
        glances = []
        allowed = self.narrow(seen, n_text, cached=cache is not None)
        for layer, block in enumerate(self.blocks):
            x, weights, both = block(x, allowed, cache[layer] if cache else None)
            kept.append(both)
            glances.append(weights)
        return self.norm(x), glances[0][:, :READERS], kept

    def say(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> logits (B, S, G, K) and that of the end (B, S)."""
        logits = self.head(hidden).unflatten(2, (BANDS, CODES))
        return logits, self.end(hidden).squeeze(-1)

    def forward(self, batch: SpeechBatch) -> Spoken:
        """Teacher-forced."""
        prefix, valid = self.prefix(batch)
        told = self.told(self.quantise(batch.mel)) + self.voice(batch)
        valid = torch.cat([valid, mask_of(batch.n_frames + 1, told.shape[1])], dim=1)
        n_before = prefix.shape[1]
        seen = self.seen(valid)
        hidden, weights, _ = self.run(torch.cat([prefix, told.to(prefix)], dim=1), seen, n_before)
        logits, end = self.say(hidden[:, n_before:])
        glance = weights.mean(dim=1)[:, n_before:, 1:n_before]
        return Spoken(logits, end, glance)

    def expect(self, logits: Tensor) -> Tensor:
        """Logits (B, S, G, K) -> the mel that is expected under them (B, S, M)."""
        shares = logits.float().softmax(dim=-1)
        return torch.einsum("bsgk,gkm->bsgm", shares, self.codebook.float()).flatten(2)

    def ended(self, logits: Tensor, end: Tensor) -> Tensor:
        """(B, S) probability that a place says the end: it competes with the first band's codes."""
        first = torch.cat([logits[:, :, 0], end[..., None]], dim=2)
        return first.float().softmax(dim=2)[..., -1]

    # speaking

    def choose(self, logits: Tensor) -> Tensor:
        """Logits (B, 1, G, K) -> codes (B, 1, G): the likeliest."""
        return logits.argmax(dim=-1)

    def speak(
        self, batch: SpeechBatch, n_frames: int, history: Tensor | None = None, stop: bool = False
    ) -> Tensor:
        """Frame after frame, with a cache: (B, n_frames, M), fewer where `stop` and the end is the
        likeliest. The first frames of what is fed back are those of `history` (B, t, M) if given.
        """
        given = self.quantise(history) if history is not None else None
        n_given = 0 if given is None else given.shape[1]
        prefix, valid = self.prefix(batch)
        voice = self.voice(batch)
        x = torch.cat([prefix, (self.begin(len(prefix)) + voice).to(prefix)], dim=1)
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
        hidden, _, cache = self.run(x, self.seen(valid), prefix.shape[1])
        mels: list[Tensor] = []
        for number in range(n_frames):
            logits, end = self.say(hidden[:, -1:])
            if stop and number and bool((end[:, 0] > logits[:, 0, 0].amax(dim=1)).all()):
                break
            mels.append(self.expect(logits))
            if number + 1 == n_frames:
                break
            chosen = self.choose(logits)
            if given is not None and number < n_given:
                chosen = given[:, number : number + 1]
            valid = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
            told = (self.fed_back(chosen, number) + voice).to(prefix)
            hidden, _, cache = self.run(told, valid[:, None], prefix.shape[1], cache)
        return torch.cat(mels, dim=1)

    def fed_back(self, codes: Tensor, number: int) -> Tensor:
        """What the next place hears: codes (B, 1, G) of frame `number` -> (B, 1, D)."""
        return self.embed_codes(codes, number)
