"""Train steps that accumulate, clip and scale, and an attention that overflows in fp16."""

import functools

import torch
from torch import nn

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, losses, split


def over_calls(k, divided=True):
    """One optimiser step every k calls."""
    count = {"calls": 0}

    def step(model, optimizer, batch):
        (losses(model, batch)["total"] / (k if divided else 1)).backward()
        count["calls"] += 1
        if count["calls"] % k == 0:
            optimizer.step()
            optimizer.zero_grad()

    return step


def micro_batches(
    weigh, clip=None, zero_inside=False, stepping=False, autocast=False, one_backward=False
):
    """One step over micro-batches of one clip; `weigh(part, batch, k)` is what a part's loss is
    multiplied by.
    """

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        parts, totals = split(batch), []
        for part in parts:
            if zero_inside:
                optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                totals.append(losses(model, part)["total"] * weigh(part, batch, len(parts)))
            if not one_backward:
                totals[-1].backward()
            if stepping:
                optimizer.step()
        if one_backward:
            sum(totals).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if not stepping:
            optimizer.step()

    return step


def by_frames(part, batch, k):
    return float(part["lengths"].sum() / batch["lengths"].sum())


def equally(part, batch, k):
    return 1 / k


def undivided(part, batch, k):
    return 1.0


def value_clipped(model, optimizer, batch):
    optimizer.zero_grad()
    losses(model, batch)["total"].backward()
    nn.utils.clip_grad_value_(model.parameters(), 1e-3)
    optimizer.step()


def two_backwards(model, optimizer, batch):
    optimizer.zero_grad()
    total = losses(model, batch)["total"]
    (0.3 * total).backward(retain_graph=True)
    (0.7 * total).backward()
    optimizer.step()


adamw = functools.partial(
    lambda model, **options: torch.optim.AdamW(model.parameters(), lr=1e-2, **options)
)


class HalfScores(Tiny):
    """fp16 attention, whose fully masked rows overflow."""

    def scores(self, query, memory, mask):
        scores = (query.half() @ memory.half().transpose(1, 2)).float()
        return scores.half() + (~mask[:, None]) * torch.tensor(self.mask_value).to(torch.float16)
