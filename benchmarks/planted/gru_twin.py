"""A small TTS model as a user of this package would bring it: convolutions, GRUs, their own names,
and the adapter around it.

Shapes: B batch, N characters (phoneme symbols), T frames, M = 80 mel bins, D width. Inside, mels
are (B, M, T).
"""

from __future__ import annotations

import contextlib
import functools
import operator
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from tts_core.config import AudioConfig
from tts_core.speech.audio import griffin_lim, log_mel
from tts_core.speech.dataset import Clip
from tts_core.speech.phonemes import ARPABET
from tts_workbook.faults.planting import Setting
from tts_workbook.subject.subject import Subject

AUDIO = AudioConfig()
SYMBOLS = ("_", *ARPABET, "SIL", "?")  # "_" fills batches, "?" stands for what the table lacks
LR = {"adamw": 2e-3, "adam": 2e-3, "sgd": 5e-2}
CLIP_NORM = 1.0
BINS = 80


# --- data -----------------------------------------------------------------------------------------


def mask_of(lengths: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size), True where valid."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class MelData:
    """The user's data code: clips -> items -> dict batches, mels standardised per bin over all
    clips.

    A batch: txt (B, N) ids, txt_len (B,), dur (B, N) frames, mels (B, M, T) standardised, mel_len
    (B,), chars and wav, lists of B.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.items = [self.item(clip) for clip in setting.clips]
        self.fit_scale(torch.cat([item["mel"] for item in self.items]))

    def item(self, clip: Clip) -> dict:
        chars = list(clip.phonemes)
        return {
            "chars": chars,
            "ids": self.encode(chars),
            "dur": torch.from_numpy(clip.durations).long(),
            "wav": clip.samples,
            "mel": self.extract(clip.samples),
        }

    def extract(self, samples: np.ndarray) -> Tensor:
        """(L,) -> (T, M) log-mels."""
        return log_mel(samples, AUDIO)

    def encode(self, chars: Sequence[str]) -> Tensor:
        return torch.tensor(
            [SYMBOLS.index(char) if char in SYMBOLS else SYMBOLS.index("?") for char in chars]
        )

    def fit_scale(self, frames: Tensor) -> None:
        self.mean, self.std = frames.mean(dim=0), frames.std(dim=0).clamp(min=0.1)

    def scale(self, mel: Tensor) -> Tensor:
        return (mel - self.mean) / self.std

    def unscale(self, mel: Tensor) -> Tensor:
        return mel * self.std + self.mean

    def collate(self, items: Sequence[dict]) -> dict:
        return {
            "txt": pad_sequence([item["ids"] for item in items], batch_first=True),
            "txt_len": torch.tensor([len(item["ids"]) for item in items]),
            "dur": pad_sequence([item["dur"] for item in items], batch_first=True),
            "mels": (
                pad_sequence(
                    [self.scale(item["mel"]) for item in items], batch_first=True
                ).transpose(1, 2)
            ),
            "mel_len": torch.tensor([len(item["mel"]) for item in items]),
            "chars": [item["chars"] for item in items],
            "wav": [item["wav"] for item in items],
        }

    def batch(self) -> dict:
        return self.collate(self.items[: self.setting.batch_size])

    def batches(self) -> Iterator[dict]:
        """All clips, epoch after epoch, in an order drawn anew."""
        order, dice = list(self.items), random.Random(self.setting.seed)
        while True:
            dice.shuffle(order)
            for start in range(
                0, len(order) - self.setting.batch_size + 1, self.setting.batch_size
            ):
                yield self.collate(order[start : start + self.setting.batch_size])

    def features(self, samples: np.ndarray, rate: int) -> Tensor:
        return self.scale(self.extract(samples))

    def vocode(self, mel: Tensor) -> tuple[np.ndarray, int]:
        return griffin_lim(self.unscale(mel), AUDIO), AUDIO.sample_rate


def duplicate(batch: dict, k: int) -> dict:
    return {
        name: part.repeat(k, *[1] * (part.ndim - 1)) if isinstance(part, Tensor) else part * k
        for name, part in batch.items()
    }


def pad(batch: dict, n: int) -> dict:
    """What a longer neighbour in the batch would do: n more empty frames and n more empty
    characters.
    """
    return batch | {name: F.pad(batch[name], (0, n)) for name in ("txt", "dur", "mels")}


def pad_text(batch: dict, n: int) -> dict:
    """What a neighbour with a longer text would do: n more empty characters of no frames."""
    return batch | {name: F.pad(batch[name], (0, n)) for name in ("txt", "dur")}


def trim(batch: dict, a: int, b: int) -> dict:
    """Without the first a and the last b frames of each clip, and without the characters that lie
    in them.
    """
    rows = []
    for i, frames in enumerate(batch["mel_len"].tolist()):
        n = int(batch["txt_len"][i])
        ends = batch["dur"][i, :n].cumsum(0)
        dur = ends.clamp(a, frames - b) - (ends - batch["dur"][i, :n]).clamp(a, frames - b)
        kept = dur > 0
        hop = len(batch["wav"][i]) // max(frames - 1, 1)
        chars = zip(batch["chars"][i], kept.tolist(), strict=True)
        rows.append(
            {
                "ids": batch["txt"][i, :n][kept],
                "dur": dur[kept],
                "mel": batch["mels"][i, :, a : frames - b].T,
                "chars": [char for char, keep in chars if keep],
                "wav": batch["wav"][i][a * hop : (frames - 1 - b) * hop],
            }
        )
    stack = {
        new: pad_sequence([row[old] for row in rows], batch_first=True)
        for new, old in (("txt", "ids"), ("dur", "dur"), ("mels", "mel"))
    }
    return stack | {
        "mels": stack["mels"].transpose(1, 2),
        "txt_len": torch.tensor([len(row["ids"]) for row in rows]),
        "mel_len": torch.tensor([len(row["mel"]) for row in rows]),
        "chars": [row["chars"] for row in rows],
        "wav": [row["wav"] for row in rows],
    }


def shuffle_text(batch: dict, generator: torch.Generator) -> dict:
    """Characters of each clip in another order, pauses and durations where they were."""
    txt, chars = batch["txt"].clone(), [list(row) for row in batch["chars"]]
    for i, row in enumerate(chars):
        places = [place for place, char in enumerate(row) if char != "SIL"]
        moved = [places[j] for j in torch.randperm(len(places), generator=generator).tolist()]
        txt[i, places] = batch["txt"][i, moved]
        chars[i] = [
            row[moved[places.index(place)]] if place in places else char
            for place, char in enumerate(row)
        ]
    return batch | {"txt": txt, "chars": chars}


# --- model ----------------------------------------------------------------------------------------


class ValidBatchNorm(nn.BatchNorm1d):
    """BatchNorm over valid positions only: (B, C, T), (B, T) -> (B, C, T), zero elsewhere."""

    # it takes a mask beside what it normalises, as its parent does not
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        rows = x.transpose(1, 2)
        out = torch.zeros_like(rows)
        out[mask] = super().forward(rows[mask].to(self.weight.dtype)).to(out.dtype)
        return out.transpose(1, 2)


class ConvUnit(nn.Module):
    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, 5, padding=2)
        self.bn = ValidBatchNorm(n_out)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.drop(F.gelu(self.bn(self.conv(x * mask[:, None]), mask)))


class CharReader(nn.Module):
    """Characters (B, N) -> (B, N, D): embedding, two convolutions, a bidirectional GRU over the
    valid ones.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.chars = nn.Embedding(len(SYMBOLS), 64)
        self.units = nn.ModuleList([ConvUnit(64, 64, dropout), ConvUnit(64, 64, dropout)])
        self.bigru = nn.GRU(64, width // 2, batch_first=True, bidirectional=True)

    def forward(self, txt: Tensor, txt_len: Tensor) -> Tensor:
        mask = mask_of(txt_len, txt.shape[1])
        x = self.chars(txt).transpose(1, 2)
        for unit in self.units:
            x = unit(x, mask)
        x = x.transpose(1, 2).to(self.bigru.weight_hh_l0.dtype)
        packed = pack_padded_sequence(x, txt_len.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(
            self.bigru(packed)[0], batch_first=True, total_length=txt.shape[1]
        )[0]


class Glance(nn.Module):
    """Dot-product attention of frames (B, T, *) over characters (B, N, D), without location (Luong
    et al. 2015).
    """

    def __init__(self, n_query: int, width: int, size: int = 64) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(n_query, size), nn.Linear(width, size)
        self.value = nn.Linear(width, size)

    def forward(self, x: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(read).transpose(1, 2) / self.query.out_features**0.5
        return self.hide(scores, mask).softmax(dim=-1) @ self.value(read)

    def hide(self, scores: Tensor, mask: Tensor) -> Tensor:
        return scores.masked_fill(~mask[:, None], float("-inf"))


class Refine(nn.Module):
    """Residual two-layer network with the norm in front."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm: nn.Module = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.down(F.relu(self.up(self.norm(x)))))


class CharConvGRU(nn.Module):
    """Characters read by convolutions and a GRU, stretched by their durations, spoken frame by
    frame by another GRU.
    """

    max_stretch = 1.5  # full inference stops at this multiple of the predicted length
    reader_kind, glance_kind, refine_kind = CharReader, Glance, Refine

    def __init__(self, dropout: float = 0.0, tied: bool = False, width: int = 96) -> None:
        super().__init__()
        self.width = width
        self.reader = self.reader_kind(width, dropout)
        self.place = nn.Linear(8, width)
        self.dur_head = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))
        self.prenet = nn.Sequential(
            nn.Linear(BINS, 96),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(96, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.glance = self.glance_kind(64 + width, width)
        self.speaker = nn.GRU(64 + width + 64, width, batch_first=True)
        self.refine = nn.ModuleList([self.refine_kind(width, dropout) for _ in range(3)])
        self.out_norm: nn.Module = nn.LayerNorm(width)
        self.to_mel, self.to_stop = nn.Linear(width, BINS), nn.Linear(width, 1)
        self.post_in, self.post_bn = nn.Conv1d(BINS, 64, 5, padding=2), ValidBatchNorm(64)
        self.post_out = nn.Conv1d(64, BINS, 5, padding=2)
        if tied:
            self.glance.value.weight = self.glance.key.weight

    # text side

    def read(self, batch: dict) -> Tensor:
        return self.reader(batch["txt"], batch["txt_len"])

    def guess_log_dur(self, read: Tensor) -> Tensor:
        """(B, N, D) -> (B, N), log2(1 + frames)."""
        return self.dur_head(read).squeeze(-1)

    def stretch(self, read: Tensor, dur: Tensor, frames: int) -> Tensor:
        """(B, N, D), (B, N) -> (B, frames, D): each character for its frames, plus how far it is
        spoken; what lies behind the last character repeats it.
        """
        ends = dur.cumsum(1)
        now = torch.arange(frames, device=read.device).expand(len(read), -1).contiguous()
        now = torch.minimum(now, ends[:, -1:] - 1).clamp(min=0)
        index = torch.searchsorted(ends, now, right=True)
        begun = now - (ends - dur).gather(1, index)
        share = (begun + 0.5) / dur.gather(1, index).clamp(min=1)
        waves = torch.cos(torch.pi * share[..., None] * torch.arange(8, device=read.device))
        return read.gather(1, index[..., None].expand(-1, -1, self.width)) + self.placed(
            waves.to(read)
        )

    def placed(self, waves: Tensor) -> Tensor:
        return self.place(waves)

    # frame side

    def go_back(self, mels: Tensor) -> Tensor:
        """(B, T, M) -> (B, T, M), what the decoder is told at each frame: the frame before it,
        silence at first.
        """
        return torch.cat([torch.zeros_like(mels[:, :1]), mels[:, :-1]], dim=1)

    def told(self, before: Tensor, stretched: Tensor, read: Tensor, txt_mask: Tensor) -> Tensor:
        """Input of the decoder GRU: (B, S, M) frames before, (B, S, D) -> (B, S, 64 + D + 64)."""
        heard = torch.cat([self.prenet(before), stretched], dim=-1)
        return torch.cat([heard, self.glance(heard, read, txt_mask)], dim=-1)

    def speak(self, told: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """GRU over all frames at once, or on from a state: (B, S, *) -> (B, S, D), state."""
        weights = self.speaker.all_weights[0][1]
        return self.speaker(told.to(weights.dtype), state)

    def frame(self, spoken: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> frames (B, S, M), stop logits (B, S)."""
        for refine in self.refine:
            spoken = refine(spoken)
        spoken = self.out_norm(spoken)
        return self.to_mel(spoken), self.to_stop(spoken).squeeze(-1)

    def finish(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Residual post-net, symmetric in time: (B, S, M) -> (B, S, M)."""
        x = (frames * mask[..., None]).transpose(1, 2)
        return frames + self.post_out(torch.tanh(self.post_bn(self.post_in(x), mask))).transpose(
            1, 2
        )

    def forward(self, batch: dict) -> dict:
        """Teacher-forced: frames and mels (B, M, T) before and after the post-net, stop (B, T),
        log_dur (B, N).
        """
        read = self.read(batch)
        mels = batch["mels"].transpose(1, 2)
        mask = mask_of(batch["mel_len"], mels.shape[1])
        stretched = self.stretch(read, batch["dur"], mels.shape[1])
        before = self.go_back(mels)
        spoken, _ = self.speak(
            self.told(before, stretched, read, mask_of(batch["txt_len"], read.shape[1]))
        )
        frames, stop = self.frame(spoken, before)
        return {
            "frames": frames.transpose(1, 2),
            "mels": self.finish(frames, mask).transpose(1, 2),
            "stop": stop,
            "log_dur": self.guess_log_dur(read),
            "mask": mask,
        }

    def say(
        self, batch: dict, dur: Tensor, frames: int, history: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Self-feeding, one frame at a time: (B, frames, M) before the post-net, stop logits (B,
        frames).

        Where `history` (B, t, M) is given, it is fed in place of the first t frames of its own.
        """
        read = self.read(batch)
        txt_mask = mask_of(batch["txt_len"], read.shape[1])
        stretched = self.stretch(read, dur, frames)
        state, stops = None, []
        past: list[Tensor] = []
        for t in range(frames):
            before = self.fed_back(past, stretched)
            spoken, state = self.speak(
                self.told(before, stretched[:, t : t + 1], read, txt_mask), state
            )
            frame, stop = self.frame(spoken, before)
            past.append(
                history[:, t : t + 1] if history is not None and t < history.shape[1] else frame
            )
            stops.append(stop)
        return torch.cat(past, dim=1), torch.cat(stops, dim=1)

    def fed_back(self, past: list[Tensor], like: Tensor) -> Tensor:
        """The frame before, while generating: (B, 1, M)."""
        return past[-1] if past else like.new_zeros(len(like), 1, BINS)

    def count_frames(self, log_dur: Tensor) -> Tensor:
        """Predicted log2(1 + frames) -> whole frames, at least one."""
        return (2**log_dur - 1).round().long().clamp(1, 200)

    def talk(self, batch: dict) -> list[Tensor]:
        """Full inference, clip by clip: predicted durations, until the stop head fires; (T', M)
        each.
        """
        spoken = []
        for i, n in enumerate(batch["txt_len"].tolist()):
            one = {"txt": batch["txt"][i : i + 1, :n], "txt_len": batch["txt_len"][i : i + 1]}
            dur = self.count_frames(self.guess_log_dur(self.read(one)))
            frames, stop = self.say(one, dur, min(int(self.max_stretch * dur.sum()) + 1, 400))
            fired = (stop[0] > 0).nonzero()
            end = int(fired[0]) + 1 if len(fired) else frames.shape[1]
            spoken.append(
                self.finish(frames[:, :end], torch.ones_like(frames[:, :end, 0], dtype=torch.bool))[
                    0
                ]
            )
        return spoken


# --- loss, optimiser, step ------------------------------------------------------------------------


def mel_error(guess: Tensor, mels: Tensor, mask: Tensor) -> Tensor:
    """MSE + L1 over valid frames: (B, M, T) twice, (B, T)."""
    gap = (guess.float() - mels.float()).transpose(1, 2)[mask]
    return gap.square().mean() + gap.abs().mean()


def stop_error(logits: Tensor, mel_len: Tensor, mask: Tensor) -> Tensor:
    last = (torch.arange(logits.shape[1], device=logits.device) == mel_len[:, None] - 1).float()
    return F.binary_cross_entropy_with_logits(
        logits.float()[mask], last[mask], pos_weight=torch.tensor(3.0).to(logits.device)
    )


def dur_error(log_dur: Tensor, dur: Tensor, txt_len: Tensor) -> Tensor:
    gap = log_dur.float() - torch.log2(1.0 + dur)
    return gap[mask_of(txt_len, dur.shape[1])].square().mean()


def criterion(out: dict, batch: dict) -> dict[str, Tensor]:
    """The four terms of the loss."""
    return {
        "mel_raw": mel_error(out["frames"], batch["mels"], out["mask"]),
        "mel": mel_error(out["mels"], batch["mels"], out["mask"]),
        "stop": stop_error(out["stop"], batch["mel_len"], out["mask"]),
        "dur": dur_error(out["log_dur"], batch["dur"], batch["txt_len"]),
    }


WEIGHTS = {"mel_raw": 1.0, "mel": 1.0, "stop": 0.2, "dur": 0.2}


def total(terms: dict[str, Tensor], weights: dict[str, float] = WEIGHTS) -> dict[str, Tensor]:
    weighted = [weights[name] * term for name, term in terms.items()]
    return terms | {"total": functools.reduce(operator.add, weighted)}


def half(setting: Setting) -> contextlib.AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16) if setting.bf16 else contextlib.nullcontext()


def losses_of(setting: Setting, model: nn.Module, batch: dict) -> dict[str, Tensor]:
    with half(setting):
        out = model(batch)
    return total(criterion(out, batch))


def learning_rate(setting: Setting) -> float:
    return setting.lr or LR[setting.optimizer]


def optimise(
    setting: Setting,
    model: nn.Module,
    parameters=None,
    lr: float | None = None,
    decay: float | None = None,
    factor=None,
) -> torch.optim.Optimizer:
    """The optimiser of the setting, warm-up included; `factor` (step) multiplies the learning
    rate.
    """
    parameters = [
        p for p in (model.parameters() if parameters is None else parameters) if p.requires_grad
    ]
    lr = lr or learning_rate(setting)
    if setting.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=decay or 0.0)
    else:
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[setting.optimizer]
        optimizer = kind(
            parameters,
            lr=lr,
            weight_decay=(
                {"adamw": 0.01, "adam": 0.0}[setting.optimizer] if decay is None else decay
            ),
        )
    if setting.warmup or factor:
        ramp = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: (
                min(1.0, (step + 1) / (setting.warmup + 1)) * (factor(step) if factor else 1.0)
            ),
        )
        optimizer.register_step_post_hook(lambda *_: ramp.step())
    return optimizer


def one_step(
    subject_losses, model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict
) -> dict[str, float]:
    """The user's own training step."""
    optimizer.zero_grad()
    terms = subject_losses(model, batch)
    terms["total"].backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return {name: float(term.detach()) for name, term in terms.items()} | {"grad": float(norm)}


# --- adapter --------------------------------------------------------------------------------------


def fresh(setting: Setting, kind: type[CharConvGRU] = CharConvGRU) -> CharConvGRU:
    model = kind(dropout=setting.dropout, tied=setting.tied)
    if setting.frozen:
        model.reader.chars.requires_grad_(False)
    return model


@torch.no_grad()
def generate(model: Any, batch: dict) -> Tensor:
    frames, _ = model.say(batch, batch["dur"], batch["mels"].shape[2])
    return model.finish(frames, mask_of(batch["mel_len"], frames.shape[1]))


def continue_from(model: Any, batch: dict, history: Tensor) -> Tensor:
    frames, _ = model.say(batch, batch["dur"], history.shape[1] + 1, history)
    return frames[:, -1]


def adapt(
    setting: Setting,
    data: MelData | None = None,
    kind: type[CharConvGRU] = CharConvGRU,
    losses=None,
) -> Subject:
    """The model behind the workbook's adapter; plants change data, model class or loss, or replace
    fields.
    """
    data = data or MelData(setting)
    losses = losses or (lambda model, batch: losses_of(setting, model, batch))
    return Subject(
        build_model=lambda: fresh(setting, kind),
        batch=data.batch(),
        losses=losses,
        make_optimizer=lambda model: optimise(setting, model),
        train_step=lambda model, optimizer, batch: one_step(losses, model, optimizer, batch),
        predict_mel=lambda model, batch: model(batch)["mels"].transpose(1, 2),
        predict_frames=lambda model, batch: model(batch)["frames"].transpose(1, 2),
        target_mel=lambda batch: (batch["mels"].transpose(1, 2), batch["mel_len"]),
        generate=generate,
        continue_from=continue_from,
        batches=data.batches,
        duplicate=duplicate,
        pad=pad,
        pad_text=pad_text,
        trim=trim,
        shuffle_text=shuffle_text,
        durations=lambda batch: batch["dur"],
        symbols=lambda batch: batch["chars"],
        audio=lambda batch: [(wav, AUDIO.sample_rate) for wav in batch["wav"]],
        features=data.features,
        vocode=data.vocode,
        stop=lambda model, batch: model(batch)["stop"].sigmoid(),
        infer=torch.no_grad()(lambda model, batch: model.talk(batch)),
        memory="reader",
        frozen=("reader.chars",) if setting.frozen else (),
    )
