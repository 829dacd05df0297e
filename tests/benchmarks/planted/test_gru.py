"""The held-out architecture: its clean twin keeps what the contract promises, and each plant
differs from it as it claims.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.gru import ARCHITECTURE
from benchmarks.planted.gru_twin import adapt, mask_of
from tts_workbook.subject.subject import check_subject

EVERY = {**ARCHITECTURE.plants, **ARCHITECTURE.outside}
VARIANTS = {
    "plain": {},
    "one clip, sgd": dict(batch_size=1, optimizer="sgd"),
    "all at once": dict(
        batch_size=3, optimizer="adam", dropout=0.2, bf16=True, tied=True, frozen=True, warmup=5
    ),
}


def seeded(subject):
    torch.manual_seed(0)
    return subject.build_model()


def total_and_gradient(subject, model, batch):
    model.zero_grad()
    total = subject.losses(model, batch)["total"]
    total.backward()
    return total.detach(), torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


@pytest.fixture(scope="module")
def clean():
    return adapt(draw_setting(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_clean_twin_is_a_subject(name):
    subject = adapt(draw_setting(0, **VARIANTS[name]))
    check_subject(subject)
    assert sum(p.numel() for p in seeded(subject).parameters()) <= 500_000
    missing = {
        f.name for f in dataclasses.fields(subject) if getattr(subject, f.name) in (None, ())
    }
    assert missing <= {"checkpoint", "stochastic", "frozen", "judged"}
    frozen = {name for name, p in seeded(subject).named_parameters() if not p.requires_grad}
    assert all(name.startswith(subject.frozen) for name in frozen)


@pytest.mark.parametrize("optimizer", ("adamw", "sgd"))
def test_the_clean_twin_learns(optimizer):
    subject = adapt(draw_setting(0, optimizer=optimizer))
    model = seeded(subject).train()
    steps = subject.make_optimizer(model)
    for _ in range(60):
        subject.train_step(model, steps, subject.batch)
    target, lengths = subject.target_mel(subject.batch)
    valid = mask_of(lengths, target.shape[1])
    best_constant = (target[valid] - target[valid].median(dim=0).values).abs().mean()
    with torch.no_grad():
        error = (subject.predict_mel(model.eval(), subject.batch) - target)[valid].abs().mean()
    assert error < 0.6 * best_constant


@pytest.mark.parametrize("training", (False, True))
def test_padding_and_duplication_change_neither_loss_nor_gradient(clean, training):
    model = seeded(clean).train(training)
    total, gradient = total_and_gradient(clean, model, clean.batch)
    for batch in (clean.pad(clean.batch, 7), clean.duplicate(clean.batch, 3)):
        other, moved = total_and_gradient(clean, model, batch)
        torch.testing.assert_close(other, total, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(moved, gradient, rtol=1e-3, atol=1e-5)


def test_frame_t_depends_on_frames_before_it_only(clean):
    model = seeded(clean).eval()
    mels = clean.batch["mels"].clone().requires_grad_()
    clean.predict_frames(model, clean.batch | {"mels": mels})[:, 50].sum().backward()
    reach = mels.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
    assert int(reach.max()) == 49 and int(reach.min()) == 0


def test_continuing_from_the_true_history_equals_teacher_forcing(clean):
    model = seeded(clean).eval()
    target, _ = clean.target_mel(clean.batch)
    with torch.no_grad():
        frames = clean.predict_frames(model, clean.batch)
        for t in (0, 1, 60):
            torch.testing.assert_close(
                clean.continue_from(model, clean.batch, target[:, :t]),
                frames[:, t],
                rtol=1e-4,
                atol=1e-5,
            )


def test_the_data_parts_agree_on_any_batch(clean):
    batches = [
        clean.batch,
        next(clean.batches()),
        clean.pad(clean.batch, 5),
        clean.duplicate(clean.batch, 2),
        clean.trim(clean.batch, 9, 4),
        clean.trim(next(clean.batches()), 0, 30),
    ]
    for batch in batches:
        target, lengths = clean.target_mel(batch)
        assert clean.durations(batch).sum(dim=1).tolist() == lengths.tolist()
        assert [len(row) for row in clean.symbols(batch)] == batch["txt_len"].tolist()
        for (samples, rate), mel, n in zip(clean.audio(batch), target, lengths, strict=True):
            features = clean.features(samples, rate)
            assert features.shape == mel[:n].shape
            # a cut changes the frames at its edges
            assert (features - mel[:n])[4:-4].abs().max() < 1e-3


def test_trimming_and_shuffling_keep_the_rest(clean):
    whole, cut = clean.batch, clean.trim(clean.batch, 9, 4)
    n = int(cut["mel_len"][0])
    assert n == int(whole["mel_len"][0]) - 13
    assert torch.equal(cut["mels"][0, :, :n], whole["mels"][0, :, 9 : 9 + n])
    mixed = clean.shuffle_text(whole, torch.Generator().manual_seed(0))
    assert not torch.equal(mixed["txt"], whole["txt"]) and torch.equal(mixed["dur"], whole["dur"])
    assert [sorted(row) for row in mixed["chars"]] == [sorted(row) for row in whole["chars"]]
    assert torch.equal(mixed["txt"].sort(dim=1).values, whole["txt"].sort(dim=1).values)


def test_vocoding_gives_the_length_of_the_audio(clean):
    target, lengths = clean.target_mel(clean.batch)
    samples, rate = clean.vocode(target[0, : lengths[0]])
    assert (
        rate == clean.audio(clean.batch)[0][1]
        and abs(len(samples) - len(clean.audio(clean.batch)[0][0])) < 256
    )


@pytest.mark.parametrize("name", EVERY)
def test_every_plant_is_a_subject_that_can_step(name):
    subject = EVERY[name](draw_setting(2))
    check_subject(subject)
    model = seeded(subject).train()
    subject.train_step(model, subject.make_optimizer(model), subject.batch)


def test_severities_are_drawn_per_seed_and_repeat():
    def rate(seed):
        subject = ARCHITECTURE.plants["optimizer.lr_too_small"](draw_setting(seed))
        return subject.make_optimizer(seeded(subject)).param_groups[0]["lr"]

    assert rate(1) == rate(1) != rate(2)
    assert all(2e-3 / 3000 <= rate(seed) <= 2e-3 / 30 for seed in range(5))
