"""Every check of the data fires on its fault and stays silent on what looks like it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import tts_workbook.faults.checks.data as data_checks
import tts_workbook.faults.checks.durations as duration_checks
import tts_workbook.faults.checks.features as feature_checks
from tts_core.config import AudioConfig
from tts_core.speech.audio import log_mel
from tts_workbook.faults.checks.registry import CHECKS
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.seen_clips import pairing
from tts_workbook.planted import ours, plants_data
from tts_workbook.planted.cases import draw_setting, short_clips
from tts_workbook.planted.ours_twin import build
from tts_workbook.planted.plants_data import with_clips
from tts_workbook.subject import clip_batch

N_STEPS = 40


def found(subject, function, lab=None):
    """What a check says, by cause: the strongest first, as in a report."""
    lab = lab or Lab(subject)
    vars(lab).setdefault("n_steps", N_STEPS)
    entries = next(check for check in CHECKS if check.run is function).findings(lab)
    order = ("confirmed", "suspected", "undecided", "excluded", "not applicable")
    return {
        entry.cause.partition(".")[2]: entry
        for entry in sorted(entries, key=lambda entry: -order.index(entry.level))
    }


def level(subject, function):
    entries = found(subject, function)
    assert len(entries) == 1
    return next(iter(entries.values())).level


@pytest.fixture(scope="module")
def clean():
    return build(draw_setting(0))


# --- text against audio ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_pairing_fires_on_repaired_texts_with_durations_and_without(clean, seed):
    planted = plants_data.text_audio_pairing(build, draw_setting(seed))
    assert level(planted, data_checks.text_audio_pairing) == "confirmed"
    assert level(build(draw_setting(seed)), data_checks.text_audio_pairing) == "excluded"
    assert (
        level(replace(build(draw_setting(seed)), durations=None), data_checks.text_audio_pairing)
        == "excluded"
    )
    assert level(replace(planted, durations=None), data_checks.text_audio_pairing) in (
        "confirmed",
        "undecided",
    )


@pytest.mark.parametrize(
    "plant",
    (
        plants_data.token_collapse,
        plants_data.stale_features,
        plants_data.duration_sum,
        plants_data.mel_recipe,
    ),
)
def test_pairing_is_silent_on_its_look_alikes(plant):
    assert level(plant(build, draw_setting(1)), data_checks.text_audio_pairing) == "excluded"


def test_pairing_says_when_clips_are_too_few(clean):
    entry = found(replace(clean, batches=None), data_checks.text_audio_pairing)[
        "text_audio_pairing"
    ]
    assert entry.level == "undecided" and "batches" in entry.experiment


def test_pairing_has_the_power_that_its_thresholds_state():
    honest, wrong = [], []
    for start in range(0, 48, 6):
        clips = short_clips()[start : start + 6]
        frames, texts = [clip.mel.numpy() for clip in clips], [clip.phonemes for clip in clips]
        durations = [clip.durations.astype(float) for clip in clips]
        honest.append(pairing(frames, texts, durations, 20))
        wrong.append(pairing(frames, texts[1:] + texts[:1], durations[1:] + durations[:1], 20))
    assert min(one.z for one in honest) > data_checks.PAIRED_Z[True]
    assert max(one.z for one in wrong) < data_checks.UNPAIRED_Z[True]
    assert min(one.explained - one.repaired for one in honest) > data_checks.HONEST_GAIN[True]


# --- tokens ---------------------------------------------------------------------------------------


def test_token_collapse_fires_and_names_the_embedding(clean):
    entry = found(plants_data.token_collapse(build, draw_setting(0)), data_checks.token_collapse)[
        "token_collapse"
    ]
    assert entry.level == "confirmed" and entry.where == "text_embedding"
    assert entry.evidence["different tokens"] < entry.evidence["different symbols"]
    assert level(clean, data_checks.token_collapse) == "excluded"
    assert (
        level(plants_data.text_audio_pairing(build, draw_setting(0)), data_checks.token_collapse)
        == "excluded"
    )


def test_a_cleaner_may_merge_case_stress_and_punctuation(clean):
    def spelt(batch):
        numbers = iter(range(10**6))
        return [
            [
                symbol.lower() + str(next(numbers) % 3) if symbol.isalpha() else symbol
                for symbol in text
            ]
            for text in clip_batch.symbols(batch)
        ]

    assert level(replace(clean, symbols=spelt), data_checks.token_collapse) == "excluded"


def test_tokens_line_up_behind_a_start_token_and_with_blanks_in_between():
    texts = [("a", "b", "a"), ("b", "c")]
    assert data_checks._lined_up(torch.tensor([[9, 1, 2, 1], [9, 2, 3, 0]]), texts) == [
        [1, 2, 1],
        [2, 3],
    ]
    assert data_checks._lined_up(
        torch.tensor([[0, 1, 0, 2, 0, 1, 0], [0, 2, 0, 3, 0, 0, 0]]), texts
    ) == [[1, 2, 1], [2, 3]]
    # durations, say
    assert data_checks._lined_up(torch.tensor([[3, 4, 5], [6, 7, 0]]), texts) is None


# --- durations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", (0, 1))
def test_duration_sum_fires(seed, clean):
    assert (
        level(plants_data.duration_sum(build, draw_setting(seed)), duration_checks.duration_sum)
        == "confirmed"
    )
    assert level(clean, duration_checks.duration_sum) == "excluded"


def test_duration_sum_is_silent_on_logs_one_frame_and_groups_of_frames(clean):
    def given(change):
        return replace(
            clean,
            durations=lambda batch: [change(np.array(row)) for row in clip_batch.durations(batch)],
        )

    assert level(given(np.log1p), duration_checks.duration_sum) == "excluded"
    assert (
        level(given(lambda row: row + (np.arange(len(row)) == 0)), duration_checks.duration_sum)
        == "excluded"
    )
    assert level(given(lambda row: row / 3), duration_checks.duration_sum) == "undecided"


def domain_setting(predictor: bool):
    """A setting for which the plant draws the predictor, or the batch."""
    return next(
        setting
        for setting in (draw_setting(seed, batch_size=1) for seed in range(20))
        if (setting.random.random() < 0.5) == predictor
    )


@pytest.mark.parametrize("predictor, where", ((False, "durations"), (True, "duration_predictor")))
def test_duration_domain_fires_in_training_and_in_inference(predictor, where):
    subject = ours.PLANTS["data.duration_domain"](domain_setting(predictor))
    entry = found(subject, duration_checks.duration_domain)["duration_domain"]
    assert entry.level == "confirmed" and entry.where == where


@pytest.mark.parametrize("plant", ("clean", "data.duration_sum"))
def test_duration_domain_is_silent_on_clean_and_on_wrong_sums(plant):
    setting = draw_setting(1, batch_size=1)
    subject = build(setting) if plant == "clean" else ours.PLANTS[plant](setting)
    assert level(subject, duration_checks.duration_domain) == "excluded"


def test_an_untrained_duration_head_is_not_accused():
    subject = build(draw_setting(1, batch_size=1))
    lab = Lab(subject)
    lab.trained = lab.build()
    assert (
        found(subject, duration_checks.duration_domain, lab)["duration_domain"].level == "undecided"
    )


# --- features -------------------------------------------------------------------------------------


def recipe(name, extract_too=True, n_clips=2):
    change = plants_data.RECIPES[name]
    setting = with_clips(
        draw_setting(0, n_clips=n_clips), lambda clip: replace(clip, mel=change(clip.samples))
    )
    return build(
        setting, **({"extract": lambda samples, rate: change(samples)} if extract_too else {})
    )


@pytest.mark.parametrize(
    "change, kind",
    (
        (lambda mel: mel.roll(15, dims=0), "shifted round by 15"),
        (lambda mel: mel.T.reshape(mel.shape), "transposed"),
        (lambda mel: torch.cat([mel[:1].expand(9, -1), mel[:-9]]), "shifted by 9"),
    ),
)
def test_stale_features_fires_and_says_what_they_look_like(change, kind):
    subject = replace(build(draw_setting(0, batch_size=1)), batches=None)
    today = subject.target_mel
    subject = replace(
        subject, target_mel=lambda batch: (change(today(batch)[0][0])[None], today(batch)[1])
    )
    entry = found(subject, feature_checks.stale_features)["stale_features"]
    assert entry.level == "confirmed" and kind in entry.evidence["looks like"]


def test_stale_features_fires_on_an_older_recipe_whose_copy_synthesis_is_not_blamed():
    older = AudioConfig(power=2.0, f_max=11_025.0)
    subject = build(
        with_clips(
            draw_setting(0, n_clips=2), lambda clip: replace(clip, mel=log_mel(clip.samples, older))
        )
    )
    assert level(subject, feature_checks.stale_features) == "confirmed"
    assert {entry.level for entry in found(subject, feature_checks.copy_synthesis).values()} == {
        "excluded"
    }


@pytest.mark.parametrize("subject", ("clean", "recipe", "scaled", "noisy batches"))
def test_stale_features_is_silent_on_its_look_alikes(subject, clean):
    noisy = next(
        plants_data.batch_varies(build, setting)
        for setting in (draw_setting(seed) for seed in range(20))
        if _is_noisy(setting)
    )
    subjects = {
        "clean": clean,
        "recipe": recipe("ceiling"),
        "scaled": recipe("base 10", False),
        "noisy batches": noisy,
    }
    assert level(subjects[subject], feature_checks.stale_features) == "excluded"


def _is_noisy(setting):
    subject = plants_data.batch_varies(build, setting)
    return next(subject.batches()).mel.shape == subject.batch.mel.shape


@pytest.mark.parametrize(
    "name, extract_too",
    (("base 10", True), ("base 10", False), ("decibels", False), ("scale and norm", True)),
)
def test_mel_recipe_fires_and_a_scale_is_converted_back(name, extract_too):
    entries = found(recipe(name, extract_too), feature_checks.copy_synthesis)
    assert entries["mel_recipe"].level == "confirmed" and entries["sample_rate"].level in (
        "excluded",
        "undecided",
    )
    if name != "scale and norm":
        conversion = {"base 10": "log base 10", "decibels": "20 log10"}[name]
        assert entries["mel_recipe"].evidence["conversion"].startswith(conversion)
        assert entries["mel_recipe"].evidence["distance once converted"] < feature_checks.DISTANCE


@pytest.mark.parametrize("rate, hop, off", ((16_000, 256, "sample rate"), (22_050, 200, "hop")))
def test_sample_rate_fires_on_rate_and_hop(rate, hop, off):
    def extract(samples, given):
        return log_mel(plants_data.resample(samples, given, rate), AudioConfig(hop_length=hop))

    setting = with_clips(
        draw_setting(1, n_clips=2),
        lambda clip: replace(clip, mel=extract(clip.samples, clip.sample_rate)),
    )
    entries = found(build(setting, extract=extract), feature_checks.copy_synthesis)
    assert (
        entries["sample_rate"].level == "confirmed"
        and entries["sample_rate"].evidence["off"] == off
    )
    assert entries["mel_recipe"].level == "undecided"


def test_copy_synthesis_of_clean_and_of_raw_targets_is_right():
    setting = draw_setting(1, n_clips=2)
    for subject in (build(setting), plants_data.unnormalised_target(build, setting)):
        assert {
            entry.level for entry in found(subject, feature_checks.copy_synthesis).values()
        } == {"excluded"}


# --- silence and batches that change --------------------------------------------------------------


def test_silence_fires_only_where_it_is_long(clean):
    entry = found(plants_data.silence(build, draw_setting(0, batch_size=1)), data_checks.silence)[
        "silence"
    ]
    assert entry.level == "confirmed" and entry.evidence["silent share at the ends"] > 0.4
    lab = Lab(clean)
    assert found(clean, data_checks.silence, lab)["silence"].level == "excluded" and not lab.courses


@pytest.mark.parametrize(
    "part, loudness",
    ((slice(1, 3), 0.0), (slice(0, 2), 0.03)),
    ids=("a pause", "a quiet first half"),
)
def test_silence_is_that_at_the_ends_and_no_quiet_speech(clean, part, loudness):
    def changed(batch):
        clips = []
        for samples, rate in clip_batch.audio(batch):
            quarters = np.array_split(samples.copy(), 4)
            for quarter in quarters[part]:
                quarter *= loudness
            clips.append((np.concatenate(quarters), rate))
        return clips

    assert level(replace(clean, audio=changed), data_checks.silence) == "excluded"


def test_bundled_clips_have_less_silence_than_the_threshold():
    subject = build(draw_setting(0, n_clips=2))
    for clip in short_clips()[::4]:
        batch = clip_batch.gather([clip])
        first, last = data_checks.silent_ends(data_checks.clips_of(Lab(subject), batch)[0])
        assert (first + last) / len(clip.mel) < 0.7 * data_checks.SILENT_SHARE


@pytest.mark.parametrize("noisy", (True, False))
def test_batch_varies_fires_on_crops_and_noise(noisy):
    settings = (draw_setting(seed, batch_size=1) for seed in range(20))
    setting = next(setting for setting in settings if _is_noisy(setting) == noisy)
    entry = found(plants_data.batch_varies(build, setting), data_checks.batch_varies)[
        "batch_varies"
    ]
    assert entry.level == "confirmed"
    assert (
        entry.evidence["TF L1 / best constant, as they come"]
        > entry.evidence["the batch held fixed"]
    )


def test_batch_varies_is_silent_on_a_corpus_and_on_a_batch_that_holds_still(clean):
    def still():
        while True:
            yield clean.batch

    lab = Lab(clean)
    assert (
        found(clean, data_checks.batch_varies, lab)["batch_varies"].level == "excluded"
        and not lab.courses
    )
    assert level(replace(clean, symbols=None), data_checks.batch_varies) == "excluded"
    assert level(replace(clean, batches=still), data_checks.batch_varies) == "excluded"
    assert (
        level(plants_data.silence(build, draw_setting(0)), data_checks.batch_varies) == "excluded"
    )


def test_checks_say_what_to_supply(clean):
    bare = replace(
        clean, symbols=None, durations=None, audio=None, features=None, vocode=None, batches=None
    )
    for function, field in (
        (data_checks.text_audio_pairing, "symbols"),
        (duration_checks.duration_sum, "durations"),
        (feature_checks.stale_features, "features"),
        (feature_checks.copy_synthesis, "vocode"),
        (data_checks.silence, "audio"),
        (data_checks.batch_varies, "batches"),
    ):
        for entry in found(bare, function).values():
            assert entry.level == "not applicable" and f"Subject.{field}" in entry.experiment


def test_evidence_is_plain_numbers(clean):
    lab = Lab(clean)
    for function in (
        data_checks.text_audio_pairing,
        data_checks.token_collapse,
        duration_checks.duration_sum,
        data_checks.silence,
        data_checks.batch_varies,
        feature_checks.stale_features,
    ):
        for entry in found(clean, function, lab).values():
            assert all(
                type(value) in (int, float, str) and value == value and abs(hash(value)) != math.inf
                for value in entry.evidence.values()
            )


# --- what sounds or learns alike ------------------------------------------------------------------

ALIKE = (
    ("model.memory_scale", "text_audio_pairing"),
    ("optimizer.weight_decay", "text_audio_pairing"),
    ("data.batch_varies", "text_audio_pairing"),
    ("model.text_ignored", "token_collapse"),
    ("model.encoder_detached", "token_collapse"),
    ("data.text_audio_pairing", "batch_varies"),
    ("model.memory_scale", "batch_varies"),
    ("generation.layout", "copy_synthesis"),
    ("data.mel_recipe", "silence"),
    ("data.silence", "duration_sum"),
    ("data.sample_rate", "duration_sum"),
)


@pytest.mark.parametrize("plant, check", ALIKE, ids=[" and ".join(pair) for pair in ALIKE])
def test_data_is_not_blamed_for_what_looks_alike(plant, check):
    subject = ours.PLANTS[plant](draw_setting(1, n_clips=8))
    entries = [
        entry
        for known in CHECKS
        if known.name == check
        for entry in known.findings(Lab(subject, steps=16))
    ]
    assert entries and {entry.level for entry in entries} <= {"excluded", "undecided"}
    assert "excluded" in {entry.level for entry in entries} or plant == "data.batch_varies"
