"""The three kinds of models that nobody here wrote: the clean twins are sound and learn, every
plant differs in what its fault says, every sound design is what it says.
"""

import dataclasses
import math

import pytest
import torch

from benchmarks.planted import fastspeech2_like, flow_matching, lstm_attention
from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.cells import build, clean_setting
from benchmarks.planted.flow_matching_twin import TEMPERATURE, still_noise
from benchmarks.planted.lstm_attention_twin import guide
from benchmarks.planted.side_inputs import PitchScale, fundamental, pitch_of_clip, with_pitch
from tests.benchmarks.planted.test_twins import (
    CHECKS,
    Pair,
    alone_gap,
    differs,
    effect_of_frame,
    fresh,
    gradient_reaches,
    one_step,
    predicted,
    short_setting,
    terms,
    without_dropout,
)
from tts_core.model.modes import evaluating
from tts_workbook.diagnosis.benchmark_scores import Cell
from tts_workbook.faults.registry import CAUSES
from tts_workbook.lab.lab import Lab
from tts_workbook.subject.subject import check_subject

MODULES = {
    module.ARCHITECTURE.name: module for module in (fastspeech2_like, flow_matching, lstm_attention)
}
ARCHITECTURES = {name: module.ARCHITECTURE for name, module in MODULES.items()}
of_all = pytest.mark.parametrize("name", ARCHITECTURES)
MEL_TERM = {"fastspeech2": "mel", "flow": "prior", "lstm": "mel"}
EMBEDDING = {
    "fastspeech2": "embedding.weight",
    "flow": "embedding.weight",
    "lstm": "encoder.embedding.weight",
}
NEW_CAUSES = (
    "optimizer.schedule",
    "optimizer.averaged_weights",
    "loop.mode_not_restored",
    "data.front_end",
    "data.conditioning",
    "data.side_input",
    "loss.shifted_twice",
    "loss.auxiliary_geometry",
    "precision.half_range",
)


# --- the clean twins ------------------------------------------------------------------------------


@of_all
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "bf16": True, "batch_size": 3},
        {"tied": True, "frozen": True, "dropout": 0.2, "batch_size": 1},
    ],
)
def test_a_clean_twin_is_a_subject_of_at_most_half_a_million_parameters(name, changes):
    subject = ARCHITECTURES[name].clean(short_setting(**changes))
    check_subject(subject)
    model = fresh(subject)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 500_000
    target, lengths = subject.target_mel(subject.batch)
    assert subject.generate(model, subject.batch).shape == target.shape
    mels = subject.infer(model, subject.batch)
    assert len(mels) == len(target) and all(mel.shape[1] == target.shape[2] for mel in mels)
    assert [sum(row) for row in subject.durations(subject.batch)] == lengths.tolist()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert (len(trained) < len(list(model.parameters()))) == bool(changes.get("frozen"))


@of_all
def test_padding_and_duplication_do_not_move_what_is_predicted(name):
    subject = ARCHITECTURES[name].clean(short_setting())
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        expected = subject.predict_mel(model, subject.batch)
        padded = subject.predict_mel(model, subject.pad(subject.batch, 13))
        twice = subject.predict_mel(model, subject.duplicate(subject.batch, 2))
    lengths = subject.batch.mel_lengths.tolist()
    for row, again, length in zip(expected, padded, lengths, strict=True):
        torch.testing.assert_close(again[:length], row[:length], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twice[len(expected) :], expected, rtol=1e-4, atol=1e-4)


@of_all
def test_the_company_of_a_longer_text_moves_nothing(name):
    assert alone_gap(ARCHITECTURES[name].clean(short_setting())) < 1e-4


@pytest.mark.parametrize("t", (0, 1, 2, 17))
def test_the_lstm_continues_a_true_history_as_teacher_forcing_does(t):
    subject = lstm_attention.build(short_setting())
    model = fresh(subject)
    target, _ = subject.target_mel(subject.batch)
    with without_dropout(), evaluating(model):
        found = subject.continue_from(model, subject.batch, target[:, :t])
        expected = subject.predict_frames(model, subject.batch)[:, t]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_lstm_hears_nothing_of_the_frames_that_it_predicts():
    """Two frames a step: frame 11 is heard by the step of the frames 12 and 13."""
    before, own = effect_of_frame(lstm_attention.build(short_setting()), 11)
    assert before <= 1e-6 and own <= 1e-6


def test_batches_that_are_cut_and_repeated_carry_their_side_inputs():
    setting = short_setting()
    subject = fastspeech2_like.build(setting)
    twice = subject.duplicate(subject.batch, 2)
    assert torch.equal(twice.pitch, torch.cat([subject.batch.pitch] * 2))
    trimmed = subject.trim(subject.batch, 5, 4)
    assert trimmed.pitch.shape == trimmed.phonemes.shape
    assert subject.batch.pitch.abs().max() > 0.1
    spoken = flow_matching.build(setting).duplicate(flow_matching.build(setting).batch, 3)
    assert spoken.speakers.shape == (6, 16)


def test_the_pitch_of_a_tone_is_its_frequency_and_noise_has_none():
    rate = 22_050
    time = torch.arange(rate) / rate
    for hertz in (100.0, 220.0):
        wave = sum(torch.sin(2 * math.pi * hertz * k * time) / k for k in (1, 2, 3))
        found = fundamental(wave.numpy(), rate, 80)[4:-4]
        assert abs(found / hertz - 1).max() < 0.02
    noise = torch.randn(rate, generator=torch.Generator().manual_seed(0)).numpy()
    assert (fundamental(noise, rate, 80) > 0).mean() < 0.1


def test_some_phonemes_of_real_speech_have_no_pitch():
    clips = draw_setting(0).clips
    hertz = torch.cat([pitch_of_clip(clip) for clip in clips])
    assert 0.05 < float((hertz == 0).float().mean()) < 0.6
    batch = with_pitch(fastspeech2_like.build(draw_setting(0)).batch, PitchScale.of(clips))
    assert batch.pitch.abs().max() < 6


def test_the_guide_is_least_on_the_diagonal_of_the_true_lengths():
    n, s = 10, 20
    diagonal = torch.zeros(1, s, n)
    diagonal[0, torch.arange(s), torch.arange(s) // 2] = 1
    flat = torch.full((1, s, n), 1 / n)
    right = float(guide(diagonal, torch.tensor([n]), torch.tensor([s])))
    twice = float(guide(diagonal, torch.tensor([n]), torch.tensor([2 * s])))
    even = float(guide(flat, torch.tensor([n]), torch.tensor([s])))
    assert right < 0.01 < twice and right < even


@of_all
def test_a_few_steps_bring_a_clean_twin_down(name):
    subject = ARCHITECTURES[name].clean(short_setting(n_frames=25, batch_size=1))
    model = fresh(subject)
    optimizer = subject.make_optimizer(model)
    term = {**MEL_TERM, "flow": "flow"}[name]
    course = [subject.train_step(model, optimizer, subject.batch)[term] for _ in range(30)]
    assert sum(course[-3:]) < 0.85 * sum(course[:3])


@pytest.mark.full
@of_all
@pytest.mark.parametrize("number", (0, 1, 2))
def test_a_clean_twin_passes_the_overfit_gate_in_its_steps(name, number):
    architecture = ARCHITECTURES[name]
    subject = build(architecture, Cell(name, "clean", str(number), 100 + number))
    course = Lab(subject, seed=0, steps=architecture.steps).course()
    assert course.learnt, course.tf


def test_the_clean_runs_of_the_gate_have_every_optimiser():
    assert {clean_setting(number)["optimizer"] for number in (0, 1, 2)} == {"adamw", "adam", "sgd"}


# --- the plants -----------------------------------------------------------------------------------


@of_all
def test_every_fault_of_the_catalogue_is_planted_or_declared_nonsense(name):
    architecture = ARCHITECTURES[name]
    planted, nonsense = set(architecture.plants), set(architecture.nonsense)
    assert planted | nonsense == set(CAUSES) and not planted & nonsense
    assert all(len(reason) > 20 for reason in architecture.nonsense.values())
    assert len(architecture.outside) >= 5 and not set(architecture.outside) & set(CAUSES)


def reaches(pair):
    return pair.both(lambda subject: gradient_reaches(subject, EMBEDDING[pair.name]))


def mel(pair):
    """The mel term of the clean twin and of the faulty one."""
    return pair.both(lambda subject: terms(subject)[MEL_TERM[pair.name]])


def padded_mel(pair):
    padded = pair.faulty.pad(pair.faulty.batch, 50)
    term = MEL_TERM[pair.name]
    return terms(pair.faulty, padded)[term] / terms(pair.faulty)[term]


def way_of_the_flow(subject):
    """How far a frame comes from the noise that it started from."""
    found = predicted(subject)
    return float((found - TEMPERATURE * still_noise(found)).abs().max())


def generated(subject):
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        return subject.generate(model, subject.batch)


def only_generation_differs(pair):
    heard = (generated(pair.faulty) - generated(pair.clean)).abs().max()
    forced = (predicted(pair.faulty) - predicted(pair.clean)).abs().max()
    return float(heard) > 1e-3 and float(forced) <= 1e-6


def stepped(subject, steps):
    """The model and the optimiser after some steps of the subject."""
    model = fresh(subject)
    optimizer = subject.make_optimizer(model)
    for _ in range(steps):
        subject.train_step(model, optimizer, subject.batch)
    return model, optimizer


def rate_left(subject, steps=5):
    started = subject.make_optimizer(fresh(subject)).param_groups[0]["lr"]
    return stepped(subject, steps)[1].param_groups[0]["lr"] / started


def prediction_moved(subject, steps=5):
    """How far the prediction is from the fresh model's after some steps."""
    model, _ = stepped(subject, steps)
    with without_dropout(), evaluating(model):
        after = subject.predict_mel(model, subject.batch)
    start = fresh(subject)
    with without_dropout(), evaluating(start):
        before = subject.predict_mel(start, subject.batch)
    return float((after - before).abs().mean())


def way_of_late_steps(subject, first=15, n=3):
    """How far the weights go in `n` steps that come after `first`."""
    model, optimizer = stepped(subject, first)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(n):
        subject.train_step(model, optimizer, subject.batch)
    pairs = zip(model.parameters(), before, strict=True)
    return sum(float((new - old).norm()) for new, old in pairs)


def gradient_is_finite(subject):
    model = fresh(subject)
    subject.losses(model, subject.batch)["total"].backward()
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return all(bool(gradient.isfinite().all()) for gradient in found)


def in_range(subject):
    """No gradient and no term is beyond the range of its numbers, or rounded to zero."""
    values = list(terms(subject).values())
    return gradient_is_finite(subject) and 0.0 not in values and all(map(math.isfinite, values))


def side_input(subject):
    given = getattr(subject.batch, "pitch", None)
    return subject.batch.speakers if given is None else given


def absurd(subject):
    given = side_input(subject)
    return not bool(given.isfinite().all()) or float(given.abs().max()) > 1e3


OWN_CHECKS = {
    "loss.padding_included": lambda p: abs(padded_mel(p) - 1) > 0.01,
    "loss.wrong_reduction": lambda p: abs(mel(p)[1] / mel(p)[0] - 1) > 0.05,
    "loss.detached": lambda p: (
        not p.faulty.losses(fresh(p.faulty), p.faulty.batch)[MEL_TERM[p.name]].requires_grad
    ),
    "loss.logged_not_optimised": (
        lambda p: terms(p.faulty)["total"] < terms(p.clean)["total"] - 0.99 * mel(p)[0]
    ),
    "precision.mask_overflow": (
        lambda p: math.isnan(mel(p)[1]) and not predicted(p.faulty).isnan().any()
    ),
    # the flow draws its times and its noise anew at each pass
    "loop.no_zero_grad": (
        lambda p: one_step(p.faulty, True, 3)[1] / one_step(p.clean, True, 3)[1] > 1.5
    ),
    "loop.checkpointing": lambda p: p.name == "lstm" or reaches(p) == (True, False),
    "model.encoder_detached": lambda p: reaches(p) == (True, False),
    "model.no_right_shift": (
        lambda p: effect_of_frame(p.faulty, 11)[1] > 1e-6 >= effect_of_frame(p.clean, 11)[1]
    ),
    "optimizer.schedule": (
        lambda p: way_of_late_steps(p.faulty) < 0.5 * way_of_late_steps(p.clean)
    ),
    "optimizer.averaged_weights": (
        lambda p: prediction_moved(p.faulty) < 0.2 * prediction_moved(p.clean)
    ),
    "loop.mode_not_restored": (
        lambda p: p.both(lambda s: stepped(s, 1)[0].training) == (True, False)
    ),
    "precision.half_range": lambda p: p.both(in_range) == (True, False),
    "data.front_end": only_generation_differs,
    "data.conditioning": only_generation_differs,
    "data.side_input": lambda p: p.both(absurd) == (False, True),
    "loss.shifted_twice": lambda p: abs(mel(p)[0] - mel(p)[1]) > 1e-4,
    "loss.auxiliary_geometry": (lambda p: terms(p.faulty)["guide"] > 1.2 * terms(p.clean)["guide"]),
}
OF_THE_FLOW = {
    "model.output_range": lambda p: way_of_the_flow(p.faulty) < 0.4 < way_of_the_flow(p.clean)
}


CELLS = [(name, cause) for name in ARCHITECTURES for cause in sorted(ARCHITECTURES[name].plants)]


@pytest.mark.full
@pytest.mark.parametrize(("name", "cause"), CELLS)
def test_a_plant_differs_from_its_clean_twin_in_what_its_fault_says(name, cause):
    checks = {**CHECKS, **OWN_CHECKS, **(OF_THE_FLOW if name == "flow" else {})}
    setting = (
        draw_setting(0, n_clips=4) if cause.startswith("data.") else short_setting(n_frames=24)
    )
    pair = Pair(ARCHITECTURES[name], cause, setting, ARCHITECTURES[name].plants[cause])
    if cause in checks:
        assert checks[cause](pair)
    else:
        differs(pair)


@pytest.mark.full
@of_all
def test_the_new_causes_are_planted_wherever_they_can_be(name):
    without = {
        "fastspeech2": {"loss.shifted_twice", "loss.auxiliary_geometry"},
        "flow": {"loss.shifted_twice", "loss.auxiliary_geometry"},
        "lstm": {"data.conditioning", "data.side_input"},
    }
    assert set(ARCHITECTURES[name].plants) >= set(NEW_CAUSES) - without[name]
    assert not set(ARCHITECTURES[name].plants) & without[name]


@of_all
def test_faults_outside_the_catalogue_step(name):
    setting = short_setting(n_frames=10, batch_size=1)
    for plant in ARCHITECTURES[name].outside.values():
        subject = plant(setting)
        model = fresh(subject)
        values = subject.train_step(model, subject.make_optimizer(model), subject.batch)
        assert math.isfinite(values["total"])


@of_all
def test_faults_of_public_threads_are_subjects(name):
    for thread in ARCHITECTURES[name].threads.values():
        subject = thread.build(dataclasses.replace(short_setting(n_frames=24), **thread.needs))
        check_subject(subject)
        subject.shuffle_text(subject.batch, torch.Generator().manual_seed(0))
        assert len(subject.infer(fresh(subject), subject.batch)) == len(subject.batch.mel)


def test_dropped_symbols_leave_ids_that_are_fewer_than_the_symbols():
    thread = flow_matching.ARCHITECTURE.threads["dropped_symbols"]
    subject = thread.build(draw_setting(0, n_clips=3))
    written = [len(row) for row in subject.symbols(subject.batch)]
    assert all(ids < n for ids, n in zip(subject.batch.phoneme_lengths, written, strict=True))
    _, lengths = subject.target_mel(subject.batch)
    assert [sum(row) for row in subject.durations(subject.batch)] == lengths.tolist()


def test_another_time_base_leaves_half_of_the_audio_without_frames():
    thread = fastspeech2_like.ARCHITECTURE.threads["time_base"]
    subject = thread.build(draw_setting(0, n_clips=3))
    samples, rate = subject.audio(subject.batch)[0]
    _, lengths = subject.target_mel(subject.batch)
    assert rate == 44_100 and abs(len(samples) / 256 / int(lengths[0]) - 2) < 0.1
    assert sum(subject.durations(subject.batch)[0]) == int(lengths[0])


# --- sound designs --------------------------------------------------------------------------------


@of_all
def test_sound_designs_are_subjects_that_step(name):
    setting = short_setting(n_frames=14)
    for design, variant in ARCHITECTURES[name].sound.items():
        subject = variant(setting)
        check_subject(subject)
        model = fresh(subject)
        values = subject.train_step(model, subject.make_optimizer(model), subject.batch)
        assert math.isfinite(values["total"]), design


def sound(name, design, **changes):
    return ARCHITECTURES[name].sound[design](short_setting(n_frames=24, **changes))


@of_all
def test_nothing_of_a_sound_design_is_declared(name):
    frozen = sound(name, "frozen_undeclared")
    still = [p for p in fresh(frozen).parameters() if not p.requires_grad]
    assert still and frozen.frozen == ()
    texts_end = sound(name, "convolutions_past_the_end")
    assert alone_gap(texts_end) > 1e-3
    listed = terms(sound(name, "unlisted_terms"))
    assert len(listed) == 2 and listed["total"] > next(iter(listed.values())) + 0.01
    # it starts at a twentieth
    assert 0.2 < rate_left(sound(name, "scheduled"), 40) / 20 < 0.9
    assert stepped(sound(name, "validating"), 1)[0].training


def test_the_published_designs_are_what_they_say():
    assert sound("lstm", "prenet_undeclared").stochastic == ()
    looks_ahead = sound("lstm", "post_net_undeclared")
    assert looks_ahead.predict_frames is None
    assert effect_of_frame(looks_ahead, 11)[0] > 1e-6
    noisy = sound("flow", "noise_of_the_padded_shape")
    model = fresh(noisy)
    with evaluating(model):
        first, second = (noisy.predict_mel(model, noisy.batch) for _ in range(2))
    assert float((first - second).abs().max()) > 0.1
    for name in ("fastspeech2", "flow"):
        state = sound(name, "checkpoint_with_buffers").checkpoint
        assert any(key.endswith("table") for key in state)


@of_all
def test_zero_initialised_layers_learn(name):
    subject = sound(name, "zero_initialised")
    start, (model, _) = fresh(subject), stepped(subject, 2)
    before = dict(start.named_parameters())
    zero = {key for key, value in before.items() if key.endswith("weight") and not value.any()}
    assert zero
    assert all(model.get_parameter(key).abs().max() > 0 for key in zero)
