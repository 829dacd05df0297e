"""What notebook 07 rules of the presets: each cause of garbage turns with its number."""

import pytest
import torch

from tts_core.metrics.free_running import Gap
from tts_core.metrics.full_inference import FullInference
from tts_workbook.measure.history_parity import HistoryParity
from tts_workbook.measure.interaction import TwoByTwo
from tts_workbook.measure.listening import Judged
from tts_workbook.measure.self_feeding import SelfFeeding
from tts_workbook.measure.stop_head import StopCalibration
from tts_workbook.runner.notebook_rules.garbage_audio import Heard, Recipe, rule

MEL = torch.zeros(1, 4, 2)


def gap(tf=0.1, fr=0.2):
    return Gap(tf, fr, MEL, MEL, torch.zeros(4), torch.zeros(4))


def version(stoi=0.95, rates=(0.1, 0.1), warped=None):
    return Judged(
        mel=MEL[0],
        samples=None,
        stoi=stoi,
        stoi_warped=warped,
        mcd=1.0,
        heard=(),
        rates=rates,
    )


def versions(**changes):
    found = {
        "copy-synthesis": version(1.0),
        "healthy: free-running": version(),
        "healthy: free-running, seed layout": version(0.3),
        "no_norm: free-running": version(0.2, (0.9, 0.9)),
        "no_norm: free-running, seed layout": version(0.2),
        "uniform durations": version(0.3, warped=0.9),
        "trained on uniform durations": version(0.94),
        "full inference: healthy": version(None, warped=0.95),
    }
    return {**found, **changes}


def heard(**changes):
    fed = SelfFeeding(torch.tensor([1, 2]), torch.tensor([0.1, 0.2]), torch.ones(2), torch.ones(2))
    stop = StopCalibration(0.9, 0.01, 0.01, 0.1, 3)
    fed_right = HistoryParity({0: 1e-6}, {0: 1e-7}, 0.5, 0.0, 0.0, None, 2e-6)
    fed_wrong = HistoryParity({0: 0.4}, {0: 1e-7}, 0.5, 0.0, 0.0, None, 0.8)
    parity = {"train": fed_right, "seed": fed_wrong}
    values = dict(
        clip="clip",
        profile="quick",
        english=True,
        n_words=8,
        n_phases=2,
        sound=True,
        measured_durations=True,
        stopped="",
        trained={"no_norm_tf_l1": 0.3, "best_constant_l1": 1.0},
        gaps={name: {"train": gap(), "seed": gap()} for name in ("healthy", "no_norm")},
        parity={"healthy": parity, "no_norm": parity},
        judged=versions(),
        order=list(versions()),
        wer={"copy-synthesis": 0.1, "healthy: free-running": 0.1, "no_norm: free-running": 0.9},
        fed={"healthy": fed, "no_norm": fed},
        crossed={"healthy": None, "no_norm": 2},
        both=TwoByTwo(0.2, 1.6, 0.8, 1.7),
        recipe=Recipe(0.2, 0.01, 0.3, 5, "here"),
        stops={"healthy: teacher-forced": stop},
        inferred={"healthy": FullInference(MEL[0], torch.zeros(4), 4, 4, 4, True)},
        flat=gap(),
    )
    return Heard(**{**values, **changes})


def verdicts(found):
    return {item.id: item.verdict for item in rule(found).items}


def test_a_sound_model_is_understood_and_each_cause_is_ruled_on():
    ruling = rule(heard())
    assert verdicts(heard()) == {
        "intelligible": "supported",
        "garbage_audio_memory": "supported",
        "garbage_audio_layout": "supported",
        "garbage_audio_interaction": "refuted",
        "garbage_audio_recipe": "supported",
        "garbage_audio_full_inference": "refuted",
        "garbage_audio_alignment": "refuted",
        "garbage_audio_uniform_training": "refuted",
    }
    assert "WER 0.10 against 0.10 for copy-synthesis and 0.90 for no_norm" in ruling.answer
    assert "is worse than the best constant within 2 frames" in ruling.answer
    assert ruling.metrics["stoi_warped_uniform_durations"] == 0.9
    assert ruling.metrics["no_norm_worse_than_constant_from"] == 2
    off = {"no_norm_tf_l1": 0.3, "best_constant_l1": 1.5}
    metrics = rule(heard(trained=off)).metrics  # over the best constant -> ln units
    assert metrics["parity_train_layout"] == pytest.approx(3e-6)
    assert metrics["no_norm_parity_seed_layout"] == pytest.approx(1.2)
    assert "healthy_worse_than_constant_from" not in ruling.metrics


@pytest.mark.parametrize(
    "changes, id, verdict",
    [
        (dict(wer={"copy-synthesis": 0.1, "healthy: free-running": 0.4,
                   "no_norm: free-running": 0.9}), "intelligible", "refuted"),
        (dict(trained={"no_norm_tf_l1": 0.6, "best_constant_l1": 1.0}),
         "garbage_audio_memory", "refuted"),
        (dict(both=TwoByTwo(0.2, 0.3, 0.8, 1.7)), "garbage_audio_memory", "refuted"),
        (dict(both=TwoByTwo(0.2, 1.6, 0.3, 1.7)), "garbage_audio_layout", "refuted"),
        (dict(both=TwoByTwo(0.2, 1.6, 0.8, 6.4)), "garbage_audio_interaction", "supported"),
        (dict(recipe=Recipe(0.05, 0.01, 0.3, 5, "here")), "garbage_audio_recipe", "refuted"),
        (dict(judged=versions(**{"uniform durations": version(0.3, warped=0.6)})),
         "garbage_audio_alignment", "supported"),
        (dict(measured_durations=False), "garbage_audio_alignment", "undecided"),
        (dict(judged=versions(**{"trained on uniform durations": version(0.7)})),
         "garbage_audio_uniform_training", "supported"),
        (dict(judged=versions(**{"full inference: healthy": version(None, (0.9, 0.9), 0.9)})),
         "garbage_audio_full_inference", "supported"),
        # nothing is told from a model that is not sound itself
        (dict(sound=False), "garbage_audio_layout", "undecided"),
    ],
)  # fmt: skip
def test_each_claim_turns_with_its_number(changes, id, verdict):
    assert verdicts(heard())[id] != verdict
    assert verdicts(heard(**changes))[id] == verdict


def test_without_a_recogniser_stoi_and_length_decide():
    mute = versions()
    found = heard(english=False, wer={}, judged=mute)
    assert verdicts(found)["intelligible"] == "supported"
    item = next(i for i in rule(found).items if i.id == "garbage_audio_full_inference")
    assert item.unit == "% of the length" and item.verdict == "refuted"
    assert "no word error rate in this language" in rule(found).answer


def test_without_full_inference_and_uniform_training_nothing_is_said_of_them():
    judged = {k: v for k, v in versions().items() if k != "full inference: healthy"}
    found = heard(inferred={}, flat=None, judged=judged, order=list(judged))
    assert verdicts(found)["garbage_audio_full_inference"] == "undecided"
    assert "garbage_audio_uniform_training" not in verdicts(found)
