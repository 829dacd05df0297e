"""Every check of generation fires on its fault and stays silent on what looks like it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import tests.tts_workbook.diagnosis.tiny_speaker as tiny
import tts_workbook.faults.checks.generation as checks
from tests.tts_workbook.diagnosis.test_checks_data import found, level
from tests.tts_workbook.diagnosis.tiny_subject import M, Tiny, make_batch, sgd
from tts_workbook.faults.checks.stopping import stopping
from tts_workbook.lab import lab as laboratory
from tts_workbook.lab.lab import Lab
from tts_workbook.lab.short_run import Course
from tts_workbook.planted import ours, tacotron
from tts_workbook.planted.cases import draw_setting
from tts_workbook.planted.ours import lagging, seed_layout
from tts_workbook.planted.ours_twin import build
from tts_workbook.subject.presets import next_frame

SETTING = draw_setting(0, batch_size=2)


def fresh(subject):
    """A lab whose trained model is a fresh one: what is exact needs no training."""
    lab = Lab(subject)
    lab.trained = lab.build()
    return lab


# --- layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", (lagging, seed_layout))
def test_layout_fires_on_another_history(feed):
    subject = replace(
        build(SETTING),
        continue_from=lambda model, batch, history: next_frame(model, batch, history, feed),
    )
    entry = found(subject, checks.layout, fresh(subject))["layout"]
    assert entry.level == "confirmed" and entry.evidence["difference at frame 1"] > checks.BROKEN
    assert entry.evidence["nearest"]


@pytest.mark.parametrize(
    "name",
    (
        "clean",
        "one clip",
        "bf16 and dropout",
        "generation.exposure_gap",
        "generation.stopping",
        "model.text_ignored",
    ),
)
def test_layout_is_silent_where_parity_holds(name):
    variants = {
        "clean": {},
        "one clip": dict(batch_size=1),
        "bf16 and dropout": dict(bf16=True, dropout=0.3),
    }
    subject = (
        build(draw_setting(1, **variants[name])) if name in variants else ours.PLANTS[name](SETTING)
    )
    entry = found(subject, checks.layout, fresh(subject))["layout"]
    assert entry.level == "excluded"
    assert all(
        value < 0.01
        for name, value in entry.evidence.items()
        if name.startswith("difference at frame")
    )


def test_layout_holds_on_tacotron_2_whose_prenet_draws_in_eval_mode():
    subject = tacotron.ARCHITECTURE.clean(draw_setting(0, batch_size=2))
    assert found(subject, checks.layout, fresh(subject))["layout"].level == "excluded"


def test_layout_is_not_blamed_for_rounding_that_a_chaotic_model_blows_up():
    subject = tacotron.PLANTS["model.bad_initialisation"](draw_setting(10, batch_size=1))
    lab = fresh(subject)
    entry = found(subject, checks.layout, lab)["layout"]
    assert (
        max(checks.layout_of(lab).difference.values()) > checks.BROKEN and entry.level == "excluded"
    )


def test_layout_forgives_the_rounding_of_bf16():
    clean = build(SETTING)

    def rounded(function):
        def called(*arguments):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return function(*arguments).float()

        return called

    subject = replace(
        clean, predict_mel=rounded(clean.predict_mel), continue_from=rounded(clean.continue_from)
    )
    entry = found(subject, checks.layout, fresh(subject))["layout"]
    assert entry.level == "excluded" and entry.evidence["difference at frame 1"] > 0


@pytest.mark.parametrize("cause", ("model.no_causal_mask", "model.no_right_shift"))
def test_layout_does_not_take_the_blame_of_a_model_that_sees_the_future(cause):
    subject = ours.PLANTS[cause](SETTING)
    entry = found(subject, checks.layout, fresh(subject))["layout"]
    assert (
        entry.level == "undecided"
        and entry.evidence["teacher-forced frame moved by later frames"] > checks.LEAK
    )


def test_layout_is_not_judged_on_predictions_that_draw_at_random():
    clean = build(SETTING)

    def noisy(function):
        def drawn(*arguments):
            mel = function(*arguments)
            return mel + 0.3 * torch.randn_like(mel)

        return drawn

    subject = replace(
        clean, predict_mel=noisy(clean.predict_mel), continue_from=noisy(clean.continue_from)
    )
    assert found(subject, checks.layout, fresh(subject))["layout"].level == "undecided"


def test_layout_without_a_history_in_the_batch_is_only_suspected(monkeypatch):
    monkeypatch.setattr(checks, "find_history", lambda lab: [])
    subject = replace(
        build(SETTING),
        continue_from=lambda model, batch, history: next_frame(model, batch, history, lagging),
    )
    assert found(subject, checks.layout, fresh(subject))["layout"].level == "suspected"


# --- drift ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "early, late, wanted",
    (
        ((0.2, 0.4), None, "excluded"),  # clean: no gap
        ((0.7, 1.5), None, "undecided"),  # not learnt
        ((0.2, 0.9), (0.1, 0.2), "excluded"),  # clean, early: the gap closes
        ((0.4, 1.9), (0.1, 1.1), "undecided"),  # it is closing
        ((0.2, 1.2), (0.1, 1.1), "confirmed"),
    ),
)  # it stays
def test_exposure_gap_needs_a_gap_that_longer_training_does_not_close(
    monkeypatch, early, late, wanted
):
    subject = build(draw_setting(0, batch_size=1))
    lab = fresh(subject)
    lab.n_steps = 200
    course = Course((), (), "", 0.0, 0.0, 0.0, 1.0, lab.build())
    monkeypatch.setattr(Lab, "course", lambda self, *changes, **options: course)
    monkeypatch.setattr(
        checks, "drift", lambda lab, model: ({}, *(early if model is lab.trained else late))
    )
    assert found(subject, checks.exposure_gap, lab)["exposure_gap"].level == wanted


def test_exposure_gap_is_not_judged_where_parity_is_broken(monkeypatch):
    monkeypatch.setattr(checks, "drift", lambda lab, model: ({}, 0.1, 1.5))
    for cause in ("generation.layout", "model.no_right_shift"):
        subject = ours.PLANTS[cause](SETTING)
        assert (
            found(subject, checks.exposure_gap, fresh(subject))["exposure_gap"].level == "undecided"
        )


def test_drift_is_teacher_forced_at_the_first_frame():
    lab = fresh(build(SETTING))
    curve, forced, free = checks.drift(lab, lab.trained)
    first = (lab.predict(lab.trained, field="mel") - lab.target)[
        :, 0
    ].abs().mean() / lab.best_constant
    assert curve["FR at frames 0 to 0"] == pytest.approx(float(first), rel=1e-4)
    assert forced == pytest.approx(lab.error(lab.predict(lab.trained, field="mel"))) and free > 0


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", (ours, tacotron))
@pytest.mark.parametrize("batch_size", (1, 2))
def test_stopping_fires_on_a_loss_that_wants_another_pattern(architecture, batch_size):
    wanted = set()
    for seed in range(4):
        subject = architecture.PLANTS["generation.stopping"](
            draw_setting(seed, batch_size=batch_size)
        )
        lab = fresh(subject)
        lab.subject = replace(lab.subject, infer=None)
        entry = found(subject, stopping, lab)["stopping"]
        assert entry.level == "confirmed"
        wanted.add(entry.experiment.rpartition("wants it ")[2])
    assert wanted <= {"never", "everywhere but at the last frame"}


@pytest.mark.parametrize(
    "subject",
    (
        build(draw_setting(0)),
        build(draw_setting(1, batch_size=3, dropout=0.3)),
        tacotron.ARCHITECTURE.clean(draw_setting(0)),
        ours.PLANTS["generation.layout"](draw_setting(2)),
    ),
)
def test_stopping_does_not_accuse_a_head_that_is_not_trained_yet(subject):
    entry = found(subject, stopping, fresh(subject))["stopping"]
    assert entry.level == "undecided"
    assert (
        entry.evidence["loss with the stop at the last frame"]
        < entry.evidence["loss with the stop never"]
    )


def test_stopping_is_excluded_once_the_head_tells_the_last_frame():
    assert level(build(draw_setting(0, batch_size=1)), stopping) == "excluded"


# --- weights that cannot decide, and real drift ---------------------------------------------------


def continued(feed=lambda history: history):
    """Frame t of a tiny model from `feed` of the frames before."""

    def frame(model, batch, history):
        missing = batch["mel"].shape[1] - history.shape[1]
        return model({**batch, "mel": F.pad(feed(history), (0, 0, 0, missing))})[
            :, history.shape[1]
        ].float()

    return frame


def lagged(history):
    return torch.cat([history[:, :1], history[:, :-1]], dim=1)


def silenced(model, value):
    """The model with a history that says nothing, or no number."""
    for parameter in model.history.parameters():
        torch.nn.init.constant_(parameter, value)
    return model


@pytest.mark.parametrize("value", (0.0, math.nan), ids=("deaf to the history", "not finite"))
@pytest.mark.parametrize(
    "feed, wanted", ((lambda history: history, "excluded"), (lagged, "confirmed"))
)
def test_layout_is_judged_on_fresh_weights_where_the_trained_ones_cannot_decide(
    value, feed, wanted
):
    bench = tiny.speaker_lab(continue_from=continued(feed))
    bench.trained = silenced(bench.build(), value)
    assert found(bench.subject, checks.layout, bench)["layout"].level == wanted


@pytest.mark.parametrize(
    "value, said", ((0.0, "does not depend on the history"), (math.nan, "not finite"))
)
def test_layout_is_undecided_where_fresh_weights_cannot_decide_either(value, said):
    bench = tiny.speaker_lab(continue_from=continued(lagged))
    bench.trained = bench.model = silenced(bench.build(), value)
    entry = found(bench.subject, checks.layout, bench)["layout"]
    assert entry.level == "undecided" and said in entry.experiment


def test_layout_keeps_to_the_trained_weights_where_they_decide():
    bench = tiny.speaker_lab(continue_from=continued(lagged))
    bench.model = silenced(bench.build(), 0.0)
    assert found(bench.subject, checks.layout, bench)["layout"].level == "confirmed"


def free_running(model, batch):
    mel = batch["mel"][:, :0]
    for _ in range(batch["mel"].shape[1]):
        mel = torch.cat([mel, continued()(model, batch, mel)[:, None]], dim=1)
    return mel


def wandering(n_frames=60):
    """Frames that only the frames before foretell: a text of one symbol says nothing of them."""
    mel = torch.randn(2, n_frames, M, generator=torch.Generator().manual_seed(0)).cumsum(1)
    mel = (mel - mel.mean((0, 1))) / mel.std((0, 1))
    return {
        "text": torch.ones(2, n_frames // 2, dtype=torch.long),
        "mel": mel,
        "lengths": torch.tensor([n_frames] * 2),
    }


DRIFT = {
    "frames that nothing but frames foretell": (
        "confirmed",
        2,
        dict(build=Tiny, batch=wandering(), steps=96),
    ),
    "a gap that longer training closes": (
        "excluded",
        2,
        dict(build=Tiny, batch=make_batch(), make_optimizer=sgd),
    ),
    "frames that follow from the text": ("excluded", 1, {}),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_of_tiny_models(name):
    """The whole check with its longer training."""
    wanted, courses, fields = DRIFT[name]
    bench = tiny.speaker_lab(generate=free_running, continue_from=continued(), **fields)
    entry = tiny.findings(bench, "generation")["generation.exposure_gap"]
    assert (
        entry.level == wanted
        and len(bench.courses) == courses
        and entry.evidence["TF L1 / best constant"] < 0.5
    )


def test_drift_without_time_for_a_longer_training_says_what_to_run(monkeypatch):
    """The budget has no time for it: what was measured stays, and nothing is blamed. Where the
    steps are given, time is no matter.
    """
    monkeypatch.setattr(laboratory, "LONGEST", {"fast": 0.0})
    levels = {}
    for steps in (None, 96):
        bench = tiny.speaker_lab(
            generate=free_running,
            continue_from=continued(),
            build=Tiny,
            batch=wandering(),
            steps=steps,
        )
        bench.__dict__["n_steps"] = 96
        levels[steps] = tiny.findings(bench, "generation")["generation.exposure_gap"]
    assert (
        levels[None].level == "undecided"
        and "train 480 steps" in levels[None].experiment
        and 'budget "full"' in levels[None].experiment
    )
    assert levels[None].evidence["FR L1 / best constant"] > 0.6 and levels[96].level == "confirmed"
