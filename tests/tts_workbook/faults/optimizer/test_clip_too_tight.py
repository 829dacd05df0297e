"""optimizer.clip_too_tight: beside a small learning rate, and a clip that Adam undoes."""

from tests.tts_workbook.diagnosis.test_observe import step_with
from tests.tts_workbook.diagnosis.tiny_speaker import adam, blamed, findings
from tests.tts_workbook.faults.judged import JUDGES, confirmed, tiny_lab


def test_clip_too_tight_is_no_small_learning_rate():
    bench = tiny_lab(train_step=step_with(clip=1e-4))
    confirmed(bench, "optimizer.clip_too_tight")
    # no need to ask, for the clip's own change mends it
    assert not any("learning rate" in name for name in bench.courses)


def test_clip_below_the_eps_of_adam():
    confirmed(
        tiny_lab(train_step=step_with(clip=1e-10), make_optimizer=adam()),
        "optimizer.clip_too_tight",
    )


def test_a_clip_that_adam_undoes_is_silent():
    bench = tiny_lab(train_step=step_with(clip=1e-3), make_optimizer=adam())
    assert not blamed(findings(bench, *JUDGES)) and len(bench.courses) == 1
