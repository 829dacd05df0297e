"""The benchmark's twins: the clean ones keep their invariants, and every plant differs in what its
fault says.
"""

import dataclasses
import itertools
import math
import warnings
from unittest.mock import patch

import numpy as np
import pytest
import torch

from benchmarks.planted import ours, tacotron
from benchmarks.planted.architecture import draw_setting, short_clips
from benchmarks.planted.plants import generic_plants
from tts_core.config import preset
from tts_core.model.generation import decode_frames
from tts_core.model.modes import evaluating
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.clip_batch import split, trim_clip
from tts_workbook.subject.presets import preset_subject
from tts_workbook.subject.subject import check_subject

ARCHITECTURES = {"ours": ours.ARCHITECTURE, "tacotron2": tacotron.ARCHITECTURE}
both = pytest.mark.parametrize("name", ARCHITECTURES)


def short_setting(seed: int = 0, n_frames: int = 45, **changes):
    """A setting whose clips are cut to some 45 frames, of different lengths: what a test of seconds
    can afford.
    """
    setting = draw_setting(seed, n_clips=6, **changes)
    clips = [
        trim_clip(clip, 0, max(0, len(clip.mel) - n_frames - 4 * (index % 2)))
        for index, clip in enumerate(setting.clips)
    ]
    return dataclasses.replace(setting, clips=tuple(clips))


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*requires_grad=True.*")
        yield


def without_dropout():
    return patch("torch.nn.functional.dropout", lambda x, *args, **options: x)


def fresh(subject, seed=0):
    torch.manual_seed(seed)
    return subject.build_model()


def frames(subject, model, batch):
    return (subject.predict_frames or subject.predict_mel)(model, batch)


# --- the clean twins ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd", "bf16": True, "batch_size": 3},
        {"tied": True, "frozen": True, "dropout": 0.2},
    ],
)
def test_a_clean_twin_is_a_subject_of_at_most_half_a_million_parameters(name, changes):
    subject = ARCHITECTURES[name].clean(short_setting(**changes))
    check_subject(subject)
    assert sum(parameter.numel() for parameter in fresh(subject).parameters()) <= 500_000
    target, lengths = subject.target_mel(subject.batch)
    assert subject.generate(fresh(subject), subject.batch).shape == target.shape
    assert all(
        mel.shape[1] == target.shape[2] for mel in subject.infer(fresh(subject), subject.batch)
    )
    assert [sum(row) for row in subject.durations(subject.batch)] == lengths.tolist()
    assert subject.stop(fresh(subject), subject.batch).shape == target.shape[:2]


@both
def test_padding_and_duplication_move_neither_frames_nor_loss(name):
    subject = ARCHITECTURES[name].clean(short_setting())
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        expected, loss = (
            subject.predict_mel(model, subject.batch),
            subject.losses(model, subject.batch)["total"],
        )
        padded = subject.pad(subject.batch, 13)
        twice = subject.duplicate(subject.batch, 2)
        torch.testing.assert_close(
            subject.losses(model, padded)["total"], loss, rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            subject.losses(model, twice)["total"], loss, rtol=1e-5, atol=1e-6
        )
        for row, again, length in zip(
            expected,
            subject.predict_mel(model, padded),
            subject.batch.mel_lengths.tolist(),
            strict=True,
        ):
            torch.testing.assert_close(again[:length], row[:length], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            subject.predict_mel(model, twice)[len(expected) :], expected, rtol=1e-4, atol=1e-4
        )
    assert padded.mel.shape[1] == subject.batch.mel.shape[1] + 13 and len(twice.mel) == 2 * len(
        expected
    )


@both
@pytest.mark.parametrize("t", (0, 1, 17))
def test_the_generating_code_continues_a_true_history_as_teacher_forcing_does(name, t):
    subject = ARCHITECTURES[name].clean(short_setting())
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        target, _ = subject.target_mel(subject.batch)
        expected = frames(subject, model, subject.batch)[:, t]
        torch.testing.assert_close(
            subject.continue_from(model, subject.batch, target[:, :t]),
            expected,
            rtol=1e-4,
            atol=1e-4,
        )


@both
def test_self_feeding_frame_by_frame_is_what_generate_does(name):
    subject = ARCHITECTURES[name].clean(short_setting(n_frames=12, batch_size=1))
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        mel = subject.target_mel(subject.batch)[0][:, :0]
        for _ in range(6):
            mel = torch.cat([mel, subject.continue_from(model, subject.batch, mel)[:, None]], dim=1)
        if name == "ours":
            expected = subject.generate(model, subject.batch)
        else:
            from tts_workbook.subject.torchaudio import self_fed

            expected = self_fed(model, subject.batch, 6)
    torch.testing.assert_close(mel, expected[:, :6], rtol=1e-4, atol=1e-4)


@both
def test_trimmed_and_shuffled_batches_carry_what_they_need(name):
    subject = ARCHITECTURES[name].clean(draw_setting(0, n_clips=4))
    trimmed = subject.trim(subject.batch, 11, 7)
    _, before = subject.target_mel(subject.batch)
    target, after = subject.target_mel(trimmed)
    assert (before - after).tolist() == [18] * len(before)
    assert [sum(row) for row in subject.durations(trimmed)] == after.tolist()
    assert [len(row) for row in subject.symbols(trimmed)] == trimmed.phoneme_lengths.tolist()
    for (samples, rate), row, length in zip(
        subject.audio(trimmed), target, after.tolist(), strict=True
    ):
        found = subject.features(samples, rate)
        assert abs(len(found) - length) <= 1
        # away from the cut
        torch.testing.assert_close(found[4 : length - 4], row[4 : length - 4], rtol=0, atol=1e-3)
    shuffled = subject.shuffle_text(subject.batch, torch.Generator().manual_seed(0))
    for row, other in zip(subject.symbols(subject.batch), subject.symbols(shuffled), strict=True):
        assert sorted(row) == sorted(other) and row != other
        assert [index for index, symbol in enumerate(row) if symbol == "SIL"] == [
            index for index, symbol in enumerate(other) if symbol == "SIL"
        ]
    torch.testing.assert_close(shuffled.mel, subject.batch.mel)
    first, second = subject.batches(), subject.batches()
    assert [next(first).ids for _ in range(5)] == [next(second).ids for _ in range(5)]
    # a corpus, not the batch
    assert len({clip for _ in range(4) for clip in next(first).ids}) == 4


@both
def test_targets_are_standardised_and_audio_comes_back(name):
    subject = ARCHITECTURES[name].clean(draw_setting(1, n_clips=4))
    target, lengths = subject.target_mel(subject.batch)
    assert target[0, : lengths[0]].mean().abs() < 1 and 0.5 < target[0, : lengths[0]].std() < 2
    samples, rate = subject.vocode(target[0, : lengths[0]])
    recorded, true_rate = subject.audio(subject.batch)[0]
    assert rate == true_rate and abs(len(samples) - len(recorded)) <= 2 * 256
    assert 0.3 < np.std(samples) / np.std(recorded) < 3


def test_our_generation_from_a_given_history_is_that_of_the_package():
    subject = ours.build(short_setting())
    model, batch = fresh(subject), subject.batch
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1]
        )
        expected = model.normaliser.normalise(
            decode_frames(model, memory, batch.mel_mask, true_history=batch.mel)[0]
        )
        history = subject.target_mel(batch)[0][:, :9]
        torch.testing.assert_close(
            subject.continue_from(model, batch, history), expected[:, 9], rtol=1e-4, atol=1e-4
        )


@both
def test_a_few_steps_bring_a_clean_twin_down(name):
    subject = ARCHITECTURES[name].clean(short_setting(n_frames=25, batch_size=1))
    model = fresh(subject)
    optimizer = subject.make_optimizer(model)
    # in training mode: the running statistics of BatchNorm lag behind
    course = [subject.train_step(model, optimizer, subject.batch)["mel"] for _ in range(20)]
    assert sum(course[-3:]) < 0.85 * sum(course[:3])


def test_warm_up_scales_the_step_and_leaves_the_nominal_rate():
    subject = ours.build(short_setting(warmup=10, optimizer="sgd"))
    model = fresh(subject)
    optimizer = subject.make_optimizer(model)
    kept = model.mel_projection_out.bias.detach().clone()
    model.mel_projection_out.bias.grad = torch.ones_like(kept)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.step()
    torch.testing.assert_close(
        kept - model.mel_projection_out.bias, torch.full_like(kept, rate / 10)
    )
    assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("preset_name", ("healthy", "seed"))
def test_the_workbooks_own_presets_are_subjects(preset_name):
    experiment = preset(preset_name, Vocabulary.arpabet().get_vocab_size(), "smoke")
    subject = preset_subject(experiment, short_setting().clips[:2])
    check_subject(subject)
    target, lengths = subject.target_mel(subject.batch)
    # raw ln units
    assert (target[0, : lengths[0]].mean() < -1.5) == (preset_name == "seed")
    samples, rate = subject.audio(subject.batch)[0]
    found = subject.features(samples, rate)
    torch.testing.assert_close(
        found[4 : lengths[0] - 4], target[0, 4 : lengths[0] - 4], rtol=0, atol=1e-3
    )


# --- the plants -----------------------------------------------------------------------------------


@both
def test_every_fault_of_the_catalogue_is_planted_or_declared_nonsense(name):
    architecture = ARCHITECTURES[name]
    assert set(architecture.plants) | set(architecture.nonsense) == set(CAUSES)
    assert not set(architecture.plants) & set(architecture.nonsense)
    assert len(architecture.outside) >= 5 and not set(architecture.outside) & set(CAUSES)


class Pair:
    """A clean twin and its faulty one under one setting, with what the checks below measure on
    either.
    """

    def __init__(self, architecture, cause, setting, plant=None):
        setting = dataclasses.replace(setting, **architecture.required(cause))
        plant = plant or architecture.plants[cause]
        self.name = architecture.name
        self.clean = architecture.clean(setting)
        self.faulty = (
            plant(setting, steps=2) if cause == "loop.weights_not_loaded" else plant(setting)
        )

    def both(self, measure):
        return measure(self.clean), measure(self.faulty)


def one_step(subject, freeze=False, steps=1):
    """How far a step moves the weights, and the norm of the gradient that it leaves; `freeze` makes
    the rate zero.
    """
    model = fresh(subject)
    optimizer = subject.make_optimizer(model)
    for group in optimizer.param_groups:
        group.update(lr=0.0 if freeze else group["lr"], **({"weight_decay": 0.0} if freeze else {}))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with without_dropout():
        for _ in range(steps):
            subject.train_step(model, optimizer, subject.batch)
    moved = math.sqrt(
        sum(
            float((new - old).float().square().sum())
            for new, old in zip(model.parameters(), before, strict=True)
        )
    )
    return moved, math.sqrt(
        sum(float(p.grad.float().square().sum()) for p in model.parameters() if p.grad is not None)
    )


def terms(subject, batch=None):
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        return {
            key: float(value)
            for key, value in subject.losses(
                model, subject.batch if batch is None else batch
            ).items()
        }


def predicted(subject, batch=None):
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        return frames(subject, model, subject.batch if batch is None else batch)


def effect_of_frame(subject, t=10):
    """How much frame t of the input moves what is predicted before t and at t."""
    mel = subject.batch.mel.clone()
    mel[:, t] += 1
    change = (
        predicted(subject, dataclasses.replace(subject.batch, mel=mel)) - predicted(subject)
    ).abs()
    return float(change[:, :t].max()), float(change[:, t].max())


def gradient_reaches(subject, parameter):
    model = fresh(subject)
    subject.losses(model, subject.batch)["total"].backward()
    gradient = model.get_parameter(parameter).grad
    return gradient is not None and bool(gradient.abs().max() > 0)


def layout_gap(subject, t=12):
    model = fresh(subject)
    with without_dropout(), evaluating(model):
        found = subject.continue_from(
            model, subject.batch, subject.target_mel(subject.batch)[0][:, :t]
        )
        return float((found - frames(subject, model, subject.batch)[:, t]).abs().max())


def feature_gap(subject):
    """Stored targets against today's features, away from the ends."""
    target, lengths = subject.target_mel(subject.batch)
    samples, rate = subject.audio(subject.batch)[0]
    return float(
        (subject.features(samples, rate)[4 : lengths[0] - 4] - target[0, 4 : lengths[0] - 4])
        .abs()
        .mean()
    )


def text_effect(subject):
    other = subject.shuffle_text(subject.batch, torch.Generator().manual_seed(0))
    return float((predicted(subject, other) - predicted(subject)).abs().max())


def alone_gap(subject):
    """What the company of a longer clip changes for the shorter one."""
    parts = [predicted(subject, part)[0] for part in split(subject.batch)]
    return max(
        float((row[: len(part)] - part).abs().max())
        for row, part in zip(predicted(subject), parts, strict=True)
    )


def eval_noise(subject):
    model = fresh(subject)
    model.eval()
    with torch.no_grad():
        # what it draws is the same both times, and changes nobody else's draws
        for name in subject.stochastic:
            kept = []

            def begin(*_, kept=kept):
                kept.append(torch.get_rng_state())
                torch.manual_seed(0)

            model.get_submodule(name).register_forward_pre_hook(begin)
            model.get_submodule(name).register_forward_hook(
                lambda *_, kept=kept: torch.set_rng_state(kept.pop())
            )
        torch.manual_seed(1)
        first = subject.predict_mel(model, subject.batch)
        torch.manual_seed(2)
        return float((subject.predict_mel(model, subject.batch) - first).abs().max())


def mode_gap(subject):
    model = fresh(subject)
    with without_dropout(), torch.no_grad():
        for _ in range(40):
            trained = subject.predict_mel(model.train(), subject.batch)
        return float((subject.predict_mel(model.eval(), subject.batch) - trained).abs().mean())


def differs(pair):
    clean, faulty = pair.both(predicted)
    assert float((clean - faulty).abs().max()) > 0.01


def trains_on(subject):
    """Whether a train step leaves the model in training mode."""
    model = fresh(subject).train()
    subject.train_step(model, subject.make_optimizer(model), subject.batch)
    return model.training


def lengths_of(subject):
    return subject.target_mel(subject.batch)[1]


CHECKS = {
    "data.text_audio_pairing": (
        lambda p: (
            all(
                a != b
                for a, b in zip(
                    p.clean.symbols(p.clean.batch), p.faulty.symbols(p.faulty.batch), strict=True
                )
            )
            and [sum(row) for row in p.faulty.durations(p.faulty.batch)]
            == lengths_of(p.clean).tolist()
        )
    ),
    "data.token_collapse": (
        lambda p: len(p.faulty.batch.phonemes.unique()) < 0.6 * len(p.clean.batch.phonemes.unique())
    ),
    "data.mel_recipe": (
        lambda p: (
            feature_gap(p.faulty) < 1e-3
            and (p.faulty.batch.mel[0, 0] - p.clean.batch.mel[0, 0]).abs().max() > 0.1
        )
    ),
    "data.sample_rate": (
        lambda p: (
            feature_gap(p.faulty) < 1e-3
            and abs(float(lengths_of(p.faulty)[0] / lengths_of(p.clean)[0]) - 1) > 0.2
        )
    ),
    "data.unnormalised_target": lambda p: p.faulty.target_mel(p.faulty.batch)[0].mean() < -3,
    "data.duration_sum": lambda p: all(
        abs(sum(row) / length - 1) > 0.1
        for row, length in zip(
            p.faulty.durations(p.faulty.batch), lengths_of(p.faulty).tolist(), strict=True
        )
    ),
    "data.duration_domain": (
        lambda p: (
            terms(p.faulty)["duration"] != terms(p.clean)["duration"]
            or sum(p.faulty.durations(p.faulty.batch)[0]) < 0.6 * float(lengths_of(p.faulty)[0])
        )
    ),
    "data.stale_features": lambda p: feature_gap(p.faulty) > 0.1 and feature_gap(p.clean) < 1e-4,
    "data.silence": lambda p: 1.9 < float(lengths_of(p.faulty)[0] / lengths_of(p.clean)[0]) < 3.1,
    "data.batch_varies": lambda p: (
        not torch.equal(*[batch.mel[:, :9] for batch in itertools.islice(p.faulty.batches(), 2)])
    ),
    "loss.padding_included": (
        lambda p: (
            abs(
                terms(p.faulty, p.faulty.pad(p.faulty.batch, 50))["mel"] / terms(p.faulty)["mel"]
                - 1
            )
            > 0.01
        )
    ),
    "loss.imbalance": lambda p: terms(p.faulty)["total"] > 100 * terms(p.clean)["total"],
    "loss.wrong_reduction": (
        lambda p: abs(terms(p.faulty)["mel"] / terms(p.clean)["mel"] - 1) > 0.05
    ),
    "loss.shifted_twice": (
        lambda p: abs(terms(p.faulty)["mel"] / terms(p.clean)["mel"] - 1) > 1e-5
    ),
    "loop.mode_not_restored": lambda p: p.both(trains_on) == (True, False),
    "loss.detached": (
        lambda p: not p.faulty.losses(fresh(p.faulty), p.faulty.batch)["mel"].requires_grad
    ),
    "loss.logged_not_optimised": (
        lambda p: terms(p.faulty)["total"] < terms(p.clean)["total"] - 0.99 * terms(p.clean)["mel"]
    ),
    "optimizer.lr_too_small": lambda p: 30 < p.both(rate)[0] / p.both(rate)[1] < 3_001,
    "optimizer.lr_too_large": lambda p: 29 < p.both(rate)[1] / p.both(rate)[0] < 301,
    "optimizer.weight_decay": (
        lambda p: 0.049 < rate(p.faulty) * rate(p.faulty, "weight_decay") < 0.31
    ),
    "optimizer.clip_too_tight": lambda p: one_step(p.faulty)[0] < 1e-2 * one_step(p.clean)[0],
    "optimizer.missing_parameters": lambda p: optimised(p.faulty) < 0.99 * optimised(p.clean),
    "precision.low_precision_weights": (
        lambda p: {q.dtype for q in fresh(p.faulty).parameters()} == {torch.bfloat16}
    ),
    "precision.mask_overflow": (
        lambda p: math.isnan(terms(p.faulty)["mel"]) and not predicted(p.faulty).isnan().any()
    ),
    "precision.scaler_skips": lambda p: one_step(p.faulty)[0] == 0 < one_step(p.clean)[0],
    "precision.clip_before_unscale": (
        lambda p: 0 < one_step(p.faulty)[0] < 1e-2 * one_step(p.clean)[0]
    ),
    "loop.no_zero_grad": (
        lambda p: abs(one_step(p.faulty, True, 2)[1] / one_step(p.faulty, True)[1] - 2) < 0.01
    ),
    "loop.no_step": lambda p: one_step(p.faulty)[0] == 0 < one_step(p.clean)[0],
    "loop.accumulation": lambda p: one_step(p.faulty, True)[1] > 2 * one_step(p.clean, True)[1],
    "loop.weights_not_loaded": lambda p: bool(
        set(fresh(p.faulty).state_dict()) - set(p.faulty.checkpoint)
    ),
    "loop.checkpointing": (
        lambda p: (
            p.both(
                lambda s: gradient_reaches(
                    s, {"ours": "text_embedding.weight"}.get(p.name) or prenet_weight(s)
                )
            )
            == (True, False)
        )
    ),
    "model.no_causal_mask": (
        lambda p: effect_of_frame(p.faulty)[0] > 1e-3 > 1e-6 >= effect_of_frame(p.clean)[0]
    ),
    "model.no_right_shift": (
        lambda p: (
            effect_of_frame(p.faulty)[0] <= 1e-6 < effect_of_frame(p.faulty)[1]
            and effect_of_frame(p.clean)[1] <= 1e-6
        )
    ),
    "model.padding_mask": lambda p: alone_gap(p.faulty) > 3 * alone_gap(p.clean),
    "model.text_ignored": lambda p: text_effect(p.faulty) <= 1e-6 < text_effect(p.clean),
    "model.encoder_detached": (
        lambda p: (
            p.both(
                lambda s: gradient_reaches(
                    s, {"ours": "text_embedding.weight", "tacotron2": "embedding.weight"}[p.name]
                )
            )
            == (True, False)
        )
    ),
    "model.dropout_always_on": lambda p: eval_noise(p.faulty) > 0.01 > 1e-6 >= eval_noise(p.clean),
    "model.output_range": (
        lambda p: (
            float(predicted(p.faulty).abs().max()) <= 1
            and float(p.clean.target_mel(p.clean.batch)[0].abs().max()) > 2
        )
    ),
    "model.norm_mode": (
        lambda p: mode_gap(p.faulty) > 3 * mode_gap(p.clean) and mode_gap(p.faulty) > 0.1
    ),
    "generation.layout": lambda p: layout_gap(p.faulty) > 1e-3 > 1e-4 > layout_gap(p.clean),
    "generation.stopping": (
        lambda p: abs(terms(p.faulty)[stop_term(p)] - terms(p.clean)[stop_term(p)]) > 1e-3
    ),
}


def rate(subject, key="lr"):
    return subject.make_optimizer(fresh(subject)).param_groups[0][key]


def optimised(subject):
    return sum(
        p.numel()
        for group in subject.make_optimizer(fresh(subject)).param_groups
        for p in group["params"]
    )


def prenet_weight(subject):
    return next(name for name, _ in fresh(subject).named_parameters() if "prenet" in name)


def stop_term(pair):
    return "stop" if pair.name == "ours" else "gate"


# plants that any architecture can have: what they claim is tested as it is on the three kinds
AS_ON_THE_KINDS = (
    "data.front_end",
    "optimizer.averaged_weights",
    "optimizer.schedule",
    "precision.half_range",
)


def as_on_the_kinds(cause, pair):
    from tests.benchmarks.planted.test_kinds import OWN_CHECKS  # which stands on this file

    return OWN_CHECKS[cause](pair)


@both
@pytest.mark.parametrize("cause", sorted(CAUSES))
def test_a_plant_differs_from_its_clean_twin_in_what_its_fault_says(name, cause):
    if cause in ARCHITECTURES[name].nonsense:
        assert len(ARCHITECTURES[name].nonsense[cause]) > 20
        return
    setting = (
        draw_setting(0, n_clips=4) if cause.startswith("data.") else short_setting(n_frames=24)
    )
    pair = Pair(ARCHITECTURES[name], cause, setting)
    if cause in CHECKS:
        assert CHECKS[cause](pair)
    elif cause in AS_ON_THE_KINDS:
        assert as_on_the_kinds(cause, pair)
    else:
        differs(pair)


@both
def test_faults_outside_the_catalogue_step(name):
    setting = short_setting(n_frames=10, batch_size=1)
    for plant in ARCHITECTURES[name].outside.values():
        subject = plant(setting)
        model = fresh(subject)
        optimizer = subject.make_optimizer(model)
        values = subject.train_step(model, optimizer, subject.batch)
        assert math.isfinite(values["total"])


def test_severities_repeat_for_a_seed_and_differ_between_seeds():
    plants = generic_plants(ours.build)
    rates = [rate(plants["optimizer.lr_too_small"](short_setting(seed))) for seed in (0, 0, 1)]
    assert rates[0] == rates[1] != rates[2]


def test_short_clips_stay_short():
    assert max(len(clip.mel) for clip in short_clips()) * 256 / 22_050 < 1.5
