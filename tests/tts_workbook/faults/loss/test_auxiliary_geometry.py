"""loss.auxiliary_geometry: a guide of the attention that is built for other lengths, beside right
ones, heavy ones and losses without a guide.
"""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import D, speaker_lab
from tests.tts_workbook.diagnosis.tiny_subject import M, losses
from tts_workbook.faults.examine import examine
from tts_workbook.faults.loss.auxiliary_geometry import Geometry, Guide, decide, geometry
from tts_workbook.faults.registry import CAUSES

CAUSE = CAUSES["loss.auxiliary_geometry"]


def guide(**values):
    """A guide with these values at the slopes 1/2, 1 and 2."""
    return Guide("guide", 0, {0.5: values["half"], 1.0: values["one"], 2.0: values["two"]})


RIGHT = guide(half=0.6, one=0.1, two=0.7)
HALF = guide(half=0.1, one=0.5, two=0.9)
# another slope is less by next to nothing
NEARLY = guide(half=0.10, one=0.15, two=0.9)


@pytest.mark.parametrize(
    "numbers, expected",
    [
        (Geometry(False, False, False, 0, ()), ("excluded", "", "no attention")),
        (Geometry(False, True, False, 0, ()), ("undecided", "", "hidden")),
        (Geometry(True, False, False, 9, ()), ("undecided", "", "not told apart")),
        (Geometry(True, False, True, 9, ()), ("excluded", "", "no guide")),
        (Geometry(True, False, True, 9, (RIGHT, NEARLY)), ("excluded", "", "along the text")),
        (
            Geometry(True, False, True, 9, (RIGHT, HALF)),
            ("confirmed", "losses['guide']", "another slope"),
        ),
    ],
)
def test_decide(numbers, expected):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == expected
    assert decision.strength == (0.5 if decision.level == "confirmed" else 0.0)


class Attending(nn.Module):
    """A decoder that attends to the text, two frames a step; `stepwise` one step after another."""

    def __init__(self, stepwise=False):
        super().__init__()
        self.text, self.memory = nn.Embedding(12, D, padding_idx=0), nn.Linear(D, D)
        self.history, self.out = nn.Linear(M, D), nn.Linear(2 * D, 2 * M)
        self.stepwise = stepwise

    def forward(self, batch):
        memory = self.memory(self.text(batch["text"]))
        queries = self.history(F.pad(batch["mel"], (0, 0, 2, -2))[:, 1::2])
        mask = batch["text"] > 0
        if self.stepwise:
            rows = [self.attend(query, memory, mask) for query in queries.split(1, dim=1)]
            self.attention = torch.cat(rows, dim=1)
        else:
            self.attention = self.attend(queries, memory, mask)
        both = torch.cat([queries, self.attention @ memory], dim=2)
        return self.out(both).unflatten(2, (2, M)).flatten(1, 2)

    def attend(self, query, memory, mask):
        scores = (query @ memory.transpose(1, 2)).masked_fill(~mask[:, None], -math.inf)
        if self.stepwise:
            return F.softmax(scores[:, 0], dim=-1)[:, None]
        return scores.softmax(dim=-1)


def spoken_padded():
    """Two clips of 24 and 14 frames with 9 and 3 symbols: one is padded more in its text."""
    generator = torch.Generator().manual_seed(0)
    lengths, n_symbols = torch.tensor([24, 14]), torch.tensor([9, 3])
    text = torch.randint(1, 12, (2, 9), generator=generator)
    text *= torch.arange(9) < n_symbols[:, None]
    mel = torch.randn(2, 24, M, generator=generator)
    return {"text": text, "mel": mel, "lengths": lengths, "n_symbols": n_symbols}


def diagonal(attention, n_symbols, n_steps):
    """Attention off the diagonal (Tachibana et al. 2018)."""
    costs = []
    for weights, n, s in zip(attention, n_symbols.tolist(), n_steps.tolist(), strict=True):
        n_own = min(s, len(weights))
        along_clip = (torch.arange(n_own) + 0.5)[:, None] / s
        distance = (torch.arange(weights.shape[1]) + 0.5) / n - along_clip
        costs.append((weights[:n_own] * (1 - torch.exp(-(distance**2) / 0.08))).sum(1).mean())
    return torch.stack(costs).mean()


def own_lengths(batch):
    return batch["n_symbols"], batch["lengths"] // 2


def frames_for_steps(batch):
    return batch["n_symbols"], batch["lengths"]


def padded_lengths(batch):
    return torch.full((2,), 9), torch.full((2,), 12)


def guided(lengths_of, weight=1.0):
    def terms(model, batch):
        found = losses(model, batch)
        guide = diagonal(model.attention, *lengths_of(batch))
        return {"mel": found["mel"], "guide": guide, "total": found["mel"] + weight * guide}

    return terms


def bench_of(terms, stepwise=False):
    return speaker_lab(lambda: Attending(stepwise), batch=spoken_padded(), losses=terms)


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("lengths_of", [frames_for_steps, padded_lengths])
def test_a_guide_of_other_lengths(stepwise, lengths_of):
    """Of frames instead of steps: it wants half of the text. Of the padded lengths: the short
    clip's is another, the long one's is right.
    """
    bench = bench_of(guided(lengths_of), stepwise)
    said = examine(CAUSE, bench)
    assert (said.level, said.where) == ("confirmed", "losses['guide']")
    best = [guide.best for guide in geometry(bench).guides]
    if lengths_of is frames_for_steps:
        assert all(slope < 0.8 for slope in best)
    else:
        # clip 1 first, the shortest: 9 of 3 symbols over 12 of 7 steps
        assert best[0] > 1.2 and best[1] == 1.0


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("weight", [1.0, 1e4])
def test_a_right_guide_is_excluded_however_heavy(stepwise, weight):
    """A guide that dominates is loss.imbalance, and of the right geometry all the same."""
    bench = bench_of(guided(own_lengths, weight), stepwise)
    assert examine(CAUSE, bench).level == "excluded"
    assert {guide.term for guide in geometry(bench).guides} == {"guide"}


def test_losses_without_a_guide_are_excluded():
    bench = bench_of(losses)
    assert examine(CAUSE, bench).level == "excluded"
    found = geometry(bench)
    assert found.found and found.still and not found.guides


def test_what_keeps_its_attention_to_itself_has_no_guide():
    assert examine(CAUSE, speaker_lab()).level == "excluded"


class Hidden(Attending):
    """Weights that a fused function gives away cannot be changed."""

    def __init__(self):
        super().__init__()
        self.cross = nn.MultiheadAttention(D, 1, batch_first=True)

    def forward(self, batch):
        memory = self.memory(self.text(batch["text"]))
        queries = self.history(F.pad(batch["mel"], (0, 0, 2, -2))[:, 1::2])
        read, self.attention = self.cross(queries, memory, memory)
        return self.out(torch.cat([queries, read], dim=2)).unflatten(2, (2, M)).flatten(1, 2)


def test_weights_that_cannot_be_changed_are_undecided():
    terms = guided(frames_for_steps)
    assert examine(CAUSE, speaker_lab(Hidden, batch=spoken_padded(), losses=terms)).level == (
        "undecided"
    )
