"""precision.half_range: what fp16 alone cannot hold, in the losses, in a module, in the weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_subject import D, Tiny, lab, losses, make_batch
from tests.tts_workbook.faults.examined import examined
from tests.tts_workbook.faults.one_step import blamed, only
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.precision import half_range
from tts_workbook.faults.precision._attempts import Attempt
from tts_workbook.faults.precision._wide_parts import LOSSES, WidePart
from tts_workbook.faults.precision.half_range import (
    Exchanged,
    WideParts,
    decide,
    decide_exchanged,
    plant,
)
from tts_workbook.faults.selection import Accepted, OneFactor, PairedRun
from tts_workbook.faults.suspect import Suspect
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Change, Course

CAUSE = "precision.half_range"


def norms(eps):
    """The losses with a term of each frame's norm in fp16; in padded frames sqrt is at eps."""

    def with_norms(model, batch):
        terms = losses(model, batch)
        valid = torch.arange(batch["mel"].shape[1]) < batch["lengths"][:, None]
        sizes = []
        for mel in (model(batch).float(), batch["mel"]):
            squares = (mel * valid[..., None]).half().square()
            sizes.append(squares.mean(dim=2).add(eps).sqrt())
        norm = (sizes[0] - sizes[1]).abs()[valid].float().mean()
        return {**terms, "norm": norm, "total": terms["total"] + norm}

    return with_norms


class Scaled(nn.Module):
    """A norm over the width with this eps, in fp16; what it is given of padding is zero."""

    def __init__(self, eps=1e-3):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        x = x.half()
        return (x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()).float()


class Normed(Tiny):
    def __init__(self, **options):
        super().__init__()
        self.stack = nn.Sequential(Scaled(**options), nn.Linear(D, D))

    def encode(self, text):
        memory = super().encode(text)
        return self.stack(memory * (text > 0)[..., None])


@pytest.mark.parametrize(
    "fields, where",
    [
        (dict(losses=norms(1e-9)), LOSSES),
        (dict(build=lambda: Normed(eps=1e-9)), "stack.0"),
    ],
    ids=["in the losses", "in a module"],
)
def test_what_fp16_cannot_hold_is_found_where_it_is(fields, where):
    found = only(lab(**fields), CAUSE)
    assert found.where == where and found.evidence["finite in fp32"] == 1


@pytest.mark.parametrize(
    "fields",
    [dict(losses=norms(1e-4)), dict(build=Normed), dict(train_step=step_with(autocast=torch.half))],
    ids=["an eps that fp16 holds", "the same in a module", "fp16 autocast"],
)
def test_fp16_that_holds_its_numbers_is_silent(fields):
    bench = lab(**fields)
    assert not blamed(bench) and half_range.uses_fp16(bench)


def padded(batch, n):
    return {**batch, "mel": F.pad(batch["mel"], (0, 0, 0, n))}


def test_a_batch_without_padding_is_asked_with_padding():
    """All clips are of one length here; in training they are not."""
    hidden = lab(losses=norms(1e-9), lengths=(12, 12))
    assert examined(hidden.subject, CAUSE).level == "excluded"
    found = only(lab(losses=norms(1e-9), lengths=(12, 12), pad=padded), CAUSE)
    assert found.evidence["frames of padding appended"] == 8


def test_an_eps_of_the_optimiser_that_fp16_cannot_hold():
    """1e-8 is 0 in fp16: Adam divides by nothing. bf16 weights, as coarse, learn."""
    bench = lab(
        build=lambda: Tiny().half(),
        make_optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.02),
    )
    found = examined(bench.subject, CAUSE, bench)
    assert (found.level, found.where) == ("confirmed", "losses") and bench.course().broke


def test_no_fp16_at_all():
    assert examined(lab().subject, CAUSE).experiment.endswith("none is fp16")


def test_a_part_in_fp32_acts_and_leaves_the_rest():
    mode, model = WidePart("stack.0"), Normed(eps=1e-9)
    mode.watch(model)
    seen = []
    model.stack[1].register_forward_hook(lambda *_: seen.append(mode.acts))
    with mode:
        out = model(make_batch())
    assert mode.n_widened > 0 and seen == [False] and out.isfinite().all()
    assert (mode.depth, mode.inside) == (0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_planted(seed):
    clean = lab().subject

    def build(setting, mel_loss):
        def with_term(model, batch):
            total = mel_loss(model(batch), batch["mel"], batch["lengths"])
            return {"mel": total, "total": total}

        return replace(clean, losses=with_term)

    found = examined(plant(build, Setting(seed)), CAUSE)
    assert (found.level, found.where) == ("confirmed", LOSSES)


# --- every end once -------------------------------------------------------------------------------

FINE, BROKEN = Attempt(True, "", ""), Attempt(False, "scores", "")
TYPES = replace(BROKEN, said="RuntimeError: Half and Float")


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (WideParts(FINE), None),
        (WideParts(BROKEN, BROKEN, BROKEN), ("excluded", "scores", "fp32 is not finite either")),
        (WideParts(BROKEN, FINE, FINE), ("excluded", "scores", "a mask")),
        (WideParts(TYPES, BROKEN, FINE), ("undecided", "scores", "raises")),
        (WideParts(BROKEN, BROKEN, FINE, "a.b", 9), ("confirmed", "a.b", "a part")),
        (WideParts(BROKEN, BROKEN, FINE, "", 9), ("confirmed", "the model", "a part")),
        (WideParts(BROKEN, BROKEN, FINE, None, 9), ("suspected", "scores", "no part alone")),
    ],
)
def test_the_ends(numbers, wanted):
    decision = decide(numbers)
    assert (decision and (decision.level, decision.where, decision.reason)) == wanted


SUSPECT = Suspect(CAUSE, Change("full_range"), {}, "losses")
COURSE = Course((1,), (1.0,), "", 0.0, 0.0, 0.0, 0.0, None)
TRIED = PairedRun(SUSPECT, 0.01, COURSE)
MENDS = OneFactor(Accepted(SUSPECT, 0.3, (), COURSE, COURSE), None, True, 0.1)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Exchanged(False, None), ("excluded", "no fp16")),
        (Exchanged(True, None), None),
        (Exchanged(True, MENDS), ("confirmed", "bf16 mends it")),
        (Exchanged(True, OneFactor(None, TRIED, False, 1.0)), ("excluded", "bf16 gains nothing")),
        (Exchanged(True, OneFactor(None, None, True, 0.1)), ("excluded", "bf16 gains nothing")),
        (Exchanged(True, OneFactor(None, None, False, 1.0)), ("undecided", "not tried")),
    ],
)
def test_the_ends_of_the_exchange(numbers, wanted):
    decision = decide_exchanged(numbers)
    assert (decision and (decision.level, decision.reason)) == wanted


def test_lab_of_a_plant_keeps_the_global_modes():
    """No mode is left behind."""
    Lab(lab(losses=norms(1e-9)).subject, steps=16)
    examined(lab(losses=norms(1e-9)).subject, CAUSE)
    assert torch.overrides._get_current_function_mode() is None
