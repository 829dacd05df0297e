"""generation.layout fires on another history and stays silent on what looks like it."""

import math
from dataclasses import replace

import pytest
import torch

import tests.tts_workbook.diagnosis.tiny_speaker as tiny
from benchmarks.planted import ours, tacotron
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.ours import lagging, seed_layout
from benchmarks.planted.ours_twin import build
from tests.tts_workbook.faults.data import tiny_inputs
from tests.tts_workbook.faults.examined import examined, fresh
from tests.tts_workbook.faults.generation.tiny_generation import (
    continued,
    free_running,
    lagged,
    silenced,
)
from tts_workbook.faults.examine import examine
from tts_workbook.faults.generation.layout import (
    LEAK,
    Generated,
    decide,
    decide_generated,
    tell,
)
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.fed_as_trained import fed_as_trained
from tts_workbook.measure import history_parity
from tts_workbook.measure.history_parity import BROKEN, HistoryParity
from tts_workbook.measure.own_history import OwnHistory
from tts_workbook.subject.presets import next_frame

CAUSE = "generation.layout"
SETTING = draw_setting(0, batch_size=2)


def fed_by(feed):
    """Ours, whose generation is fed by this function of the history."""
    return replace(
        build(SETTING),
        continue_from=lambda model, batch, history: next_frame(model, batch, history, feed),
    )


# --- how the numbers decide -----------------------------------------------------------------------


def parity(
    difference=0.001, rounding=0.0, sensitivity=0.5, unsteady=0.0, leaks=0.0, nearest=None
) -> HistoryParity:
    """Of two frames that differ alike."""
    return HistoryParity(
        {0: difference, 1: difference},
        {0: rounding, 1: rounding},
        sensitivity,
        unsteady,
        leaks,
        nearest,
        difference,
    )


@pytest.mark.parametrize(
    "numbers, level, strength, reason",
    [
        (parity(), "excluded", 0.001, "holds"),
        (parity(0.3), "confirmed", 0.3, "broken"),
        (parity(3.0), "confirmed", 1.0, "broken"),
        (parity(0.3, leaks=None), "suspected", 0.3, "broken"),
        (parity(0.3, leaks=0.1), "undecided", 0.3, "sees the future"),
        (parity(0.3, sensitivity=1e-4), "undecided", 0.3, "blind"),
        # frames that rounding decides cannot be compared
        (parity(0.3, rounding=0.02), "undecided", 1.0, "chaotic"),
        (parity(0.3, unsteady=0.02), "undecided", 0.3, "random"),
        # between parity and a difference that no rounding makes
        (parity(0.03), "undecided", 0.03, "small"),
        # the same difference where another history altogether hardly changes more
        (parity(0.03, sensitivity=0.05), "confirmed", 0.03, "broken"),
        # small beside the bar, large beside what another history changes
        (parity(0.005, sensitivity=0.01), "undecided", 0.005, "small"),
    ],
)
def test_decide(numbers, level, strength, reason):
    decision = decide(numbers)
    assert (decision.level, decision.where, decision.reason) == (level, "continue_from", reason)
    assert decision.strength == pytest.approx(strength)


def test_a_first_frame_alone_compares_nothing():
    numbers = HistoryParity({0: 0.0}, {0: 0.0}, 0.5, 0.0, 0.0, None, 0.0)
    assert numbers.worst == math.inf and decide(numbers).reason == "chaotic"


@pytest.mark.parametrize(
    "nearest, words",
    [
        (0, "the same frame, from another history"),
        (2, "the teacher-forced frame 2 later"),
        (-1, "the teacher-forced frame 1 earlier"),
    ],
)
def test_tell_says_which_frame_is_nearest(nearest, words):
    numbers = parity(0.3, nearest=nearest)
    assert tell(numbers, decide(numbers)).evidence["nearest"] == words


# --- on subjects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", (lagging, seed_layout))
def test_layout_fires_on_another_history(feed):
    subject = fed_by(feed)
    entry = examined(subject, CAUSE, fresh(subject))
    assert entry.level == "confirmed" and entry.evidence["difference at frame 1"] > BROKEN
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
    entry = examined(subject, CAUSE, fresh(subject))
    assert entry.level == "excluded"
    assert all(
        value < 0.01
        for name, value in entry.evidence.items()
        if name.startswith("difference at frame")
    )


def test_layout_holds_on_tacotron_2_whose_prenet_draws_in_eval_mode():
    subject = tacotron.ARCHITECTURE.clean(draw_setting(0, batch_size=2))
    assert examined(subject, CAUSE, fresh(subject)).level == "excluded"


def test_layout_is_not_blamed_for_rounding_that_a_chaotic_model_blows_up():
    subject = tacotron.PLANTS["model.bad_initialisation"](draw_setting(10, batch_size=1))
    lab = fresh(subject)
    entry = examined(subject, CAUSE, lab)
    assert max(fed_as_trained(lab).difference.values()) > BROKEN and entry.level == "excluded"


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
    entry = examined(subject, CAUSE, fresh(subject))
    assert entry.level == "excluded" and entry.evidence["difference at frame 1"] > 0


@pytest.mark.parametrize("cause", ("model.no_causal_mask", "model.no_right_shift"))
def test_layout_does_not_take_the_blame_of_a_model_that_sees_the_future(cause):
    subject = ours.PLANTS[cause](SETTING)
    entry = examined(subject, CAUSE, fresh(subject))
    assert (
        entry.level == "undecided"
        and entry.evidence["teacher-forced frame moved by later frames"] > LEAK
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
    assert examined(subject, CAUSE, fresh(subject)).level == "undecided"


def test_layout_without_a_history_in_the_batch_is_only_suspected(monkeypatch):
    monkeypatch.setattr(history_parity, "find_history", lambda opened: [])
    subject = fed_by(lagging)
    assert examined(subject, CAUSE, fresh(subject)).level == "suspected"


# --- weights that cannot decide -------------------------------------------------------------------


@pytest.mark.parametrize("value", (0.0, math.nan), ids=("deaf to the history", "not finite"))
@pytest.mark.parametrize(
    "feed, wanted", ((lambda history: history, "excluded"), (lagged, "confirmed"))
)
def test_layout_is_judged_on_fresh_weights_where_the_trained_ones_cannot_decide(
    value, feed, wanted
):
    bench = tiny.speaker_lab(continue_from=continued(feed))
    bench.trained = silenced(bench.build(), value)
    assert examined(bench.subject, CAUSE, bench).level == wanted


@pytest.mark.parametrize(
    "value, said", ((0.0, "does not depend on the history"), (math.nan, "not finite"))
)
def test_layout_is_undecided_where_fresh_weights_cannot_decide_either(value, said):
    bench = tiny.speaker_lab(continue_from=continued(lagged))
    bench.trained = bench.model = silenced(bench.build(), value)
    entry = examined(bench.subject, CAUSE, bench)
    assert entry.level == "undecided" and said in entry.experiment


def test_layout_keeps_to_the_trained_weights_where_they_decide():
    bench = tiny.speaker_lab(continue_from=continued(lagged))
    bench.model = silenced(bench.build(), 0.0)
    assert examined(bench.subject, CAUSE, bench).level == "confirmed"


# --- by what is generated alone -------------------------------------------------------------------

OWN = OwnHistory(worst=0.3, rounding=0.0, sensitivity=0.5, unsteady=0.0, leaks=0.0)


@pytest.mark.parametrize(
    "numbers, wanted",
    [
        (Generated(True, False, None, None), None),
        (Generated(False, False, None, None), None),
        (Generated(False, True, True, None), None),
        (Generated(False, False, False, None), ("excluded", "hears nothing")),
        (Generated(False, False, True, OWN), ("confirmed", "gives another")),
        (Generated(False, False, True, replace(OWN, worst=0.001)), ("excluded", "gives itself")),
        (Generated(False, False, True, replace(OWN, worst=0.03)), ("undecided", "small")),
        (Generated(False, False, True, replace(OWN, leaks=0.1)), ("undecided", "sees the future")),
        (Generated(False, False, True, replace(OWN, unsteady=0.1)), ("undecided", "cannot tell")),
        (Generated(False, False, True, replace(OWN, rounding=0.1)), ("undecided", "cannot tell")),
        (Generated(False, False, True, replace(OWN, worst=math.nan)), ("undecided", "cannot tell")),
    ],
)
def test_decide_on_what_is_generated(numbers, wanted):
    decision = decide_generated(numbers)
    assert wanted == (decision and (decision.level, decision.reason))


def test_what_is_generated_tells_where_nothing_continues():
    """Teacher forcing on its own frames gives them again, unless generation lags."""

    def lagging_run(model, batch):
        mel = batch["mel"][:, :0]
        for _ in range(batch["mel"].shape[1]):
            frame = continued(lagged)(model, batch, mel)
            mel = torch.cat([mel, frame[:, None]], dim=1)
        return mel

    entry = examine(CAUSES[CAUSE], tiny.speaker_lab(generate=free_running))
    assert entry.level == "excluded" and entry.evidence["difference at the worst frame"] < 1e-5
    entry = examine(CAUSES[CAUSE], tiny.speaker_lab(generate=lagging_run))
    assert entry.level == "confirmed" and entry.evidence["difference at the worst frame"] > BROKEN
    # standardised behind the batch: the history has other units than the target
    ours_twin = replace(build(SETTING), continue_from=None)
    assert examined(ours_twin, CAUSE, fresh(ours_twin)).level == "excluded"


def test_a_model_that_hears_no_history_lays_none_out():
    lab = tiny_inputs.lab()
    entry = examine(CAUSES[CAUSE], lab)
    assert entry.level == "excluded" and "no history" in entry.experiment
    assert examine(CAUSES["generation.exposure_gap"], lab).level == "excluded"
