"""Batches carry lengths; masks come from lengths; duplicating and padding change no clip."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.batch import collate, duplicate, lengths_to_mask, pad_frames, permute_phonemes

PAUSE_ID = 1


def make_clip(durations: list[int], seed: int, name: str) -> SimpleNamespace:
    """What collate reads of a Clip: ids >= 2 are spoken, every third is a pause."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, 12, len(durations))
    ids[::3] = PAUSE_ID
    return SimpleNamespace(
        id=name,
        phoneme_ids=ids,
        durations=np.array(durations, dtype=np.int64),
        mel=torch.from_numpy(rng.normal(size=(sum(durations), 5)).astype(np.float32)),
    )


clips_of = st.lists(
    st.lists(st.integers(0, 6), min_size=1, max_size=9).filter(any), min_size=1, max_size=5
).map(lambda rows: [make_clip(row, seed, f"clip{seed}") for seed, row in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(clips_of)
def test_collate_keeps_every_clip_and_pads_the_rest(clips):
    batch = collate(clips)
    assert batch.ids == tuple(clip.id for clip in clips)
    assert batch.n_frames == sum(len(clip.mel) for clip in clips) == int(batch.durations.sum())
    for b, clip in enumerate(clips):
        n, t = len(clip.phoneme_ids), len(clip.mel)
        np.testing.assert_array_equal(batch.phonemes[b, :n], clip.phoneme_ids)
        np.testing.assert_array_equal(batch.durations[b, :n], clip.durations)
        assert torch.equal(batch.mel[b, :t], clip.mel)
        assert not batch.phonemes[b, n:].any() and not batch.durations[b, n:].any()
        assert torch.all(batch.mel[b, t:] == torch.tensor(AudioConfig().silence))
        assert batch.phoneme_mask[b].sum() == n and batch.mel_mask[b].sum() == t
    assert (batch.phonemes.dtype, batch.durations.dtype, batch.mel.dtype) == (
        torch.int64,
        torch.int64,
        torch.float32,
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 4))
def test_masks_are_a_prefix_of_true(lengths, extra):
    mask = lengths_to_mask(torch.tensor(lengths), max(lengths) + extra)
    assert mask.dtype == torch.bool and mask.shape == (len(lengths), max(lengths) + extra)
    for row, length in zip(mask.tolist(), lengths, strict=True):
        assert row == [True] * length + [False] * (len(row) - length)


def test_mask_does_not_look_at_values():
    clips = [make_clip([3, 3], 0, "zeros"), make_clip([5, 5], 1, "other")]
    clips[0].mel = torch.zeros_like(clips[0].mel)
    assert collate(clips, pad_value=0.0).mel_mask[0].sum() == 6


@settings(max_examples=30, deadline=None)
@given(clips_of, st.integers(1, 4))
def test_duplicate_is_collating_the_clips_k_times(clips, k):
    one, many = collate(clips * k), duplicate(collate(clips), k)
    for name, value in vars(one).items():
        assert (
            torch.equal(value, getattr(many, name))
            if isinstance(value, torch.Tensor)
            else value == getattr(many, name)
        )


@settings(max_examples=30, deadline=None)
@given(clips_of, st.integers(0, 20))
def test_pad_frames_adds_silence_that_is_masked(clips, n):
    batch = collate(clips, pad_value=-7.0)
    padded = pad_frames(batch, n)
    t = batch.mel.shape[1]
    assert (
        padded.mel.shape[1] == t + n
        and torch.equal(padded.mel[:, :t], batch.mel)
        and torch.all(padded.mel[:, t:] == -7.0)
    )
    assert padded.n_frames == batch.n_frames and not padded.mel_mask[:, t:].any()
    assert torch.equal(padded.durations, batch.durations)


@settings(max_examples=60, deadline=None)
@given(clips_of, st.integers(0, 2**31))
def test_permutation_moves_only_spoken_phonemes_within_their_clip(clips, seed):
    batch = collate(clips)
    wrong = permute_phonemes(batch, PAUSE_ID, torch.Generator().manual_seed(seed))
    assert torch.equal(wrong.phonemes.sort(dim=1).values, batch.phonemes.sort(dim=1).values)
    assert torch.equal(wrong.phonemes == PAUSE_ID, batch.phonemes == PAUSE_ID)
    assert torch.equal(wrong.phonemes == 0, batch.phonemes == 0)
    assert wrong.durations is batch.durations and wrong.mel is batch.mel
    again = permute_phonemes(batch, PAUSE_ID, torch.Generator().manual_seed(seed))
    assert torch.equal(wrong.phonemes, again.phonemes)


def test_permutation_changes_the_text(librivox):
    batch = collate([librivox.default_clip])
    wrong = permute_phonemes(batch, librivox.vocabulary.pause_id, torch.Generator().manual_seed(0))
    assert (wrong.phonemes != batch.phonemes).float().mean() > 0.5


def test_to_moves_every_tensor(librivox):
    moved = collate(librivox.clips[:2]).to("meta")
    assert all(
        value.device.type == "meta"
        for value in vars(moved).values()
        if isinstance(value, torch.Tensor)
    )
    assert moved.ids == tuple(clip.id for clip in librivox.clips[:2])


def test_what_makes_no_batch_is_refused():
    clip = make_clip([2, 3], 0, "one")
    with pytest.raises(WorkbookError, match="no clips"):
        collate([])
    with pytest.raises(WorkbookError, match="k = 0"):
        duplicate(collate([clip]), 0)
    with pytest.raises(WorkbookError, match="n = -1"):
        pad_frames(collate([clip]), -1)
    clip.durations = np.array([2, 2])
    with pytest.raises(
        WorkbookError, match="clip one: 2 durations of 2 phonemes sum to 4, not to the 5 frames"
    ):
        collate([clip])
