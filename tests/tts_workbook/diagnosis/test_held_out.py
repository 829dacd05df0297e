"""The two held-out architectures: their clean twins keep what the adapter promises and learn, and
each plant differs from its twin in what it claims.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks.planted.architecture import Architecture, draw_setting
from tests.tts_workbook.diagnosis import token_lm_plants, vits_like_plants
from tests.tts_workbook.diagnosis.vits_like_data import SpeechBatch, mask_of, trim
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.subject import Subject, check_subject

MODULES = {"vits_like": vits_like_plants, "token_lm": token_lm_plants}
both = pytest.mark.parametrize("name", MODULES)
EVERY = [
    (name, plant)
    for name, module in MODULES.items()
    for plant in {**module.PLANTS, **module.NEW_PLANTS, **module.ARCHITECTURE.outside}
]
# the catalogue as it will be, its nine new rows included
NEW = {
    "optimizer.schedule",
    "optimizer.averaged_weights",
    "loop.mode_not_restored",
    "data.front_end",
    "data.conditioning",
    "data.side_input",
    "loss.shifted_twice",
    "loss.auxiliary_geometry",
    "precision.half_range",
}
VARIANTS = {
    "plain": {},
    "one clip, sgd": dict(batch_size=1, optimizer="sgd"),
    "all at once": dict(
        batch_size=3, optimizer="adam", dropout=0.2, bf16=True, tied=True, frozen=True, warmup=5
    ),
}
# what may come out not finite after a step, or before one
NOT_FINITE = ("precision.mask_overflow", "precision.half_range", "data.side_input")


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*requires_grad=True.*")
        yield


@functools.cache
def setting_of(name: str, plant: str = "", seed: int = 2) -> Setting:
    module = MODULES[name]
    return draw_setting(
        seed,
        max_seconds=module.ARCHITECTURE.max_seconds,
        **module.REQUIRED.get(plant, {}),
    )


def plant_of(name: str, plant: str):
    module = MODULES[name]
    return {**module.PLANTS, **module.NEW_PLANTS, **module.ARCHITECTURE.outside}[plant]


@functools.cache
def clean_of(name: str) -> Subject:
    return MODULES[name].ARCHITECTURE.clean(setting_of(name))


def seeded(subject: Subject, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return subject.build_model()


def total_and_gradient(subject: Subject, model: nn.Module, batch: SpeechBatch):
    model.zero_grad()
    torch.manual_seed(1)
    total = subject.losses(model, batch)["total"]
    total.backward()
    return total.detach(), torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    )


# --- the clean twins ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_clean_twin_is_a_subject(name, variant):
    architecture: Architecture = MODULES[name].ARCHITECTURE
    subject = architecture.clean(
        draw_setting(0, max_seconds=architecture.max_seconds, **VARIANTS[variant])
    )
    check_subject(subject)
    model = seeded(subject)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 500_000
    missing = {
        field.name
        for field in dataclasses.fields(subject)
        if getattr(subject, field.name) in (None, ())
    }
    allowed = {"checkpoint", "stochastic", "frozen", "predict_frames", "judged"}
    if name == "vits_like":  # nothing is fed back, and the length is the sum of the frames
        allowed |= {"continue_from", "stop"}
    assert missing <= allowed
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert bool(frozen) == VARIANTS[variant].get("frozen", False)
    assert all(name.startswith(tuple(subject.frozen)) for name in frozen)
    target, _ = subject.target_mel(subject.batch)
    assert subject.generate(model, subject.batch).shape == target.shape
    spoken = subject.infer(model, subject.batch)
    assert [mel.shape[1] for mel in spoken] == [target.shape[2]] * len(target)


@both
def test_padding_and_duplication_change_neither_loss_nor_gradient(name):
    """In evaluation, where nothing is drawn."""
    subject = clean_of(name)
    model = seeded(subject).eval()
    total, gradient = total_and_gradient(subject, model, subject.batch)
    others = (
        subject.pad(subject.batch, 7),
        subject.pad_text(subject.batch, 5),
        subject.duplicate(subject.batch, 3),
    )
    for batch in others:
        other, moved = total_and_gradient(subject, model, batch)
        torch.testing.assert_close(other, total, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(moved, gradient, rtol=1e-3, atol=1e-5)


@both
def test_the_data_parts_agree_on_any_batch(name):
    subject = clean_of(name)
    batches = [
        subject.batch,
        next(subject.batches()),
        subject.pad(subject.batch, 5),
        subject.duplicate(subject.batch, 2),
        subject.trim(subject.batch, 9, 4),
        subject.trim(next(subject.batches()), 0, 20),
    ]
    for batch in batches:
        target, lengths = subject.target_mel(batch)
        assert [sum(row) for row in subject.durations(batch)] == lengths.tolist()
        assert [len(row) for row in subject.symbols(batch)] == batch.n_ids.tolist()
        sounds = zip(subject.audio(batch), target, lengths.tolist(), strict=True)
        for (samples, rate), mel, length in sounds:
            features = subject.features(samples, rate)
            assert features.shape == mel[:length].shape
            # a cut changes the frames at its edges
            assert (features - mel[:length])[4:-4].abs().max() < 1e-3


@both
def test_inference_asks_for_what_training_had(name):
    subject = clean_of(name)
    mixed = subject.shuffle_text(subject.batch, torch.Generator().manual_seed(0))
    assert not torch.equal(mixed.ids, subject.batch.ids)
    data = MODULES[name].KIT.data(setting_of(name))
    for batch in (subject.batch, mixed, trim(subject.batch, 9, 4)):
        asked = data.asked(batch)
        assert torch.equal(asked.ids, batch.ids) and torch.equal(asked.n_ids, batch.n_ids)
        for condition, values in batch.conditions.items():
            assert torch.equal(asked.conditions[condition], values)


def test_the_flow_goes_back_where_it_came_from():
    model = seeded(clean_of("vits_like")).eval()
    for parameter in model.flow.parameters():
        nn.init.normal_(parameter, std=0.1)
    batch = clean_of("vits_like").batch
    mask, voice = batch.frame_mask, batch.conditions["voice"]
    latent = torch.randn(len(batch.ids), 16, mask.shape[1]) * mask[:, None]
    flowed, log_det = model.flow(latent, mask, voice)
    assert (flowed - latent).abs().max() > 0.1 and log_det.abs().max() > 0.01
    torch.testing.assert_close(model.flow.back(flowed, mask, voice), latent, rtol=1e-4, atol=1e-4)


def test_the_latent_model_speaks_without_the_mel():
    subject = clean_of("vits_like")
    model = seeded(subject).eval()
    other = dataclasses.replace(subject.batch, mel=torch.randn_like(subject.batch.mel))
    said = []
    for batch in (subject.batch, other):
        torch.manual_seed(3)
        said.append(subject.generate(model, batch))
    assert torch.equal(*said)


def test_a_token_depends_on_frames_before_it_only():
    subject = clean_of("token_lm")
    model = seeded(subject).eval()
    mel = subject.batch.mel.clone()
    mel[:, 20:] = -mel[:, 20:]
    with torch.no_grad():
        before = subject.predict_mel(model, subject.batch)
        after = subject.predict_mel(model, dataclasses.replace(subject.batch, mel=mel))
    torch.testing.assert_close(after[:, :21], before[:, :21])
    assert (after - before)[:, 21].abs().max() > 1e-3


def test_continuing_from_the_true_history_equals_teacher_forcing():
    subject = clean_of("token_lm")
    model = seeded(subject).eval()
    target, _ = subject.target_mel(subject.batch)
    with torch.no_grad():
        mel = subject.predict_mel(model, subject.batch)
        for t in (0, 1, 30):
            torch.testing.assert_close(
                subject.continue_from(model, subject.batch, target[:, :t]),
                mel[:, t],
                rtol=1e-4,
                atol=1e-5,
            )


def test_the_codebook_keeps_most_of_a_mel_and_repeats():
    subject = clean_of("token_lm")
    model, again = seeded(subject), seeded(subject, seed=1)
    assert torch.equal(model.codebook, again.codebook)
    codes = model.quantise(subject.batch.mel)
    certain = 100.0 * nn.functional.one_hot(codes, model.codebook.shape[1])
    assert relative_error(subject, model.expect(certain)) < 0.4


def relative_error(subject: Subject, mel: Tensor) -> float:
    """L1 over that of the best constant of each bin."""
    target, lengths = subject.target_mel(subject.batch)
    valid = mask_of(lengths, target.shape[1])
    best = (target[valid] - target[valid].median(dim=0).values).abs().mean()
    return float((mel.float() - target)[valid].abs().mean() / best)


def trained(subject: Subject, steps: int) -> nn.Module:
    model = seeded(subject)
    optimizer = subject.make_optimizer(model)
    for _ in range(steps):
        subject.train_step(model.train(), optimizer, subject.batch)
    return model.eval()


@pytest.mark.full
@both
@pytest.mark.parametrize("seed", (2, 3))
@pytest.mark.parametrize(
    "changes",
    (
        {},
        {"optimizer": "sgd"},
        {"optimizer": "adam", "warmup": 20, "dropout": 0.3},
        {"batch_size": 1, "bf16": True, "tied": True, "frozen": True},
    ),
)
def test_a_clean_twin_passes_the_overfit_gate(name, seed, changes):
    """Measured: 0.15 to 0.35, where 0.5 is wanted."""
    architecture: Architecture = MODULES[name].ARCHITECTURE
    setting = draw_setting(seed, max_seconds=architecture.max_seconds, **changes)
    subject = architecture.clean(setting)
    model = trained(subject, architecture.steps)
    with torch.no_grad():
        assert relative_error(subject, subject.predict_mel(model, subject.batch)) < 0.5


# --- the plants -----------------------------------------------------------------------------------


@both
def test_every_cause_is_planted_or_cannot_be(name):
    module = MODULES[name]
    planted, nonsense = {**module.PLANTS, **module.NEW_PLANTS}, dict(module.NONSENSE)
    nonsense |= getattr(module, "NEW_NONSENSE", {})
    assert not set(planted) & set(nonsense)
    assert set(planted) | set(nonsense) >= set(CAUSES) | NEW
    assert set(module.ARCHITECTURE.plants) | set(module.ARCHITECTURE.nonsense) >= set(CAUSES)
    assert set(module.ARCHITECTURE.plants) <= set(CAUSES)
    assert len(module.ARCHITECTURE.outside) >= 5


@pytest.mark.parametrize("name, plant", EVERY)
def test_every_plant_is_a_subject_that_can_step(name, plant):
    subject = plant_of(name, plant)(setting_of(name, plant))
    check_subject(subject)
    model = seeded(subject).train()
    seen = subject.train_step(model, subject.make_optimizer(model), subject.batch)
    if plant not in NOT_FINITE:
        assert all(value == value for value in seen.values())


def twins(name: str, plant: str, seed: int = 2) -> tuple[Subject, Subject]:
    """A plant and its clean twin."""
    setting = setting_of(name, plant, seed)
    return plant_of(name, plant)(setting), MODULES[name].ARCHITECTURE.clean(setting)


def reach(subject: Subject) -> int:
    """How far behind frame 20 the mel moves where frame 20 is changed: 1 is the next frame."""
    model = seeded(subject).eval()
    mel = subject.batch.mel.clone()
    mel[:, 20] = -3 * mel[:, 20] + 1
    with torch.no_grad():
        before = subject.predict_mel(model, subject.batch)
        after = subject.predict_mel(model, dataclasses.replace(subject.batch, mel=mel))
    moved = (after - before).abs().amax(dim=(0, 2)) > 1e-5
    return int(moved.nonzero()[0]) - 20


def test_what_a_token_sees_is_what_its_plant_says():
    faulty, clean = twins("token_lm", "model.no_right_shift")
    assert (reach(faulty), reach(clean)) == (0, 1)
    for seed in (2, 3):
        faulty, _ = twins("token_lm", "model.no_causal_mask", seed)
        assert reach(faulty) < 1


@both
def test_a_detached_encoder_has_no_gradient(name):
    for subject, dead in zip(twins(name, "model.encoder_detached"), (True, False), strict=True):
        model = seeded(subject).train()
        subject.losses(model, subject.batch)["total"].backward()
        grads = [parameter.grad for parameter in model.text.parameters()]
        assert all(grad is None or not grad.any() for grad in grads) == dead


@both
def test_a_model_that_ignores_its_text_says_the_same_of_another(name):
    for subject, deaf in zip(twins(name, "model.text_ignored"), (True, False), strict=True):
        model = seeded(subject).eval()
        other = subject.shuffle_text(subject.batch, torch.Generator().manual_seed(0))
        said = []
        for batch in (subject.batch, other):
            torch.manual_seed(3)
            said.append(subject.generate(model, batch))
        assert ((said[0] - said[1]).abs().max() < 1e-3) == deaf


@both
def test_inference_is_asked_otherwise_where_that_is_the_fault(name):
    for plant in ("data.front_end", "data.conditioning"):
        for seed in (2, 3):
            faulty, clean = twins(name, plant, seed)
            model = seeded(clean).eval()
            with torch.no_grad():
                same = [subject.predict_mel(model, subject.batch) for subject in (faulty, clean)]
            assert torch.equal(*same)
            said = []
            for subject in (faulty, clean):
                torch.manual_seed(3)
                said.append(subject.generate(model, subject.batch))
            assert not torch.equal(*said)


@both
def test_what_judges_is_an_average_that_has_not_caught_up(name):
    faulty, _ = twins(name, "optimizer.averaged_weights")
    model = seeded(faulty).train()
    optimizer = faulty.make_optimizer(model)
    with torch.no_grad():
        before = faulty.predict_mel(model.eval(), faulty.batch)
    for _ in range(2):
        faulty.train_step(model.train(), optimizer, faulty.batch)
    with torch.no_grad():
        judged = faulty.predict_mel(faulty.judged(model.eval()), faulty.batch)
        raw = faulty.predict_mel(model, faulty.batch)
    assert (judged - before).abs().mean() < 0.3 * (raw - before).abs().mean()


@both
def test_a_mode_is_left_or_judged_in(name):
    for seed in (2, 3):
        faulty, _ = twins(name, "loop.mode_not_restored", seed)
        model = seeded(faulty).train()
        faulty.train_step(model, faulty.make_optimizer(model), faulty.batch)
        left = not model.training
        with torch.no_grad():
            mels = [faulty.predict_mel(model.eval(), faulty.batch) for _ in range(2)]
        assert left or not torch.equal(*mels)


@both
def test_the_schedule_ends_where_it_was_to_begin(name):
    for seed in (2, 3):
        faulty, _ = twins(name, "optimizer.schedule", seed)
        model = seeded(faulty).train()
        optimizer = faulty.make_optimizer(model)
        for _ in range(12):
            faulty.train_step(model, optimizer, faulty.batch)
        assert optimizer.param_groups[0]["lr"] < 0.01 * MODULES[name].KIT.rates["adamw"]


@both
def test_padded_symbols_are_seen_where_the_mask_is_wrong(name):
    """A clip beside others says something else than alone."""
    for subject, wrong in zip(twins(name, "model.padding_mask"), (True, False), strict=True):
        model = seeded(subject).eval()
        with torch.no_grad():
            one = subject.losses(model, subject.batch)["total"]
            padded = subject.losses(model, subject.pad_text(subject.batch, 6))["total"]
        assert (float((one - padded).abs()) > 1e-4) == wrong


@both
def test_severities_are_drawn_per_seed_and_repeat(name):
    module = MODULES[name]

    def rate(seed: int) -> float:
        subject = module.PLANTS["optimizer.lr_too_small"](setting_of(name, seed=seed))
        return subject.make_optimizer(seeded(subject)).param_groups[0]["lr"]

    sound = module.KIT.rates["adamw"]
    assert rate(2) == rate(2) != rate(3)
    assert all(sound / 5_000 <= rate(seed) <= sound / 50 for seed in (2, 3))
