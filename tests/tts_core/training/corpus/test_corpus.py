"""A training corpus: divided, measured and iterated with a handful of clips in memory, whatever its
size.
"""

import shutil
import weakref

import numpy as np
import pytest
import torch

from tests.tts_core.training.corpus.tiny_corpus import make_tiny_corpus
from tts_core.config import AudioConfig
from tts_core.errors import CacheError, WorkbookError
from tts_core.training.corpus.feature_cache import FeatureCache
from tts_core.training.corpus.prepared_corpus import load_ahead, open_corpus
from tts_core.training.corpus.processes import Place
from tts_core.training.corpus.sampler import BatchPlan
from tts_workbook.corpus import data_report

AUDIO = AudioConfig()
N_CLIPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_corpus(tmp_path_factory.mktemp("tiny") / "corpus", N_CLIPS)


@pytest.fixture(scope="module")
def cache(folder):
    return FeatureCache(folder.parent / "cache")


@pytest.fixture(scope="module")
def opened(folder, cache):
    return open_corpus(folder, AUDIO, cache, held_out_clips=6)


class Living:
    """Counts how many of the objects shown to it are still in memory, and the most there ever
    were.
    """

    def __init__(self) -> None:
        self.references, self.most, self.shown = [], 0, 0

    def see(self, thing):
        self.references = [
            reference for reference in self.references if reference() is not None
        ] + [weakref.ref(thing)]
        self.most, self.shown = max(self.most, len(self.references)), self.shown + 1
        return thing


def test_checking_a_corpus_keeps_two_clips_at_most(folder, monkeypatch):
    living, measure = Living(), data_report._measure_clip
    monkeypatch.setattr(
        data_report, "_measure_clip", lambda clip, *rest: measure(living.see(clip), *rest)
    )
    report = data_report.check_corpus(folder, AUDIO)
    assert len(report.rows) == living.shown == N_CLIPS and living.most <= 2


def test_opening_and_iterating_keep_no_more_than_the_clips_of_a_batch(folder, cache, monkeypatch):
    living, get = Living(), FeatureCache.get

    def seen(self, key):
        features = get(self, key)
        if features is not None:
            living.see(features.mel)
        return features

    open_corpus(folder, AUDIO, cache)  # fills the cache
    monkeypatch.setattr(FeatureCache, "get", seen)
    opened = open_corpus(folder, AUDIO, cache)
    assert living.shown == N_CLIPS and living.most <= 2
    living.__init__()
    plan = BatchPlan([item.n_frames for item in opened.train], batch_clips=8)
    n_frames = sum(
        batch.n_frames
        for batch in load_ahead(opened, plan.parts(0, 2 * plan.steps_per_epoch), workers=0)
    )
    assert n_frames == 2 * sum(item.n_frames for item in opened.train)
    # the batch in hand and the one being made
    assert living.shown == 2 * len(opened.train) and living.most <= 2 * 8


def test_clips_are_divided_once_and_statistics_are_those_of_the_training_frames(opened):
    train, test = ({item.entry.id for item in part} for part in (opened.train, opened.held_out))
    assert len(train) == N_CLIPS - 6 and len(test) == 6 and not train & test
    frames = torch.cat([opened.load(item).mel for item in opened.train]).double()
    torch.testing.assert_close(opened.mel_mean.double(), frames.mean(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(opened.mel_std.double(), frames.std(dim=0), rtol=1e-3, atol=1e-4)


def test_loader_processes_give_the_same_batches_in_the_same_order(folder, cache, opened):
    again = open_corpus(folder, AUDIO, cache, held_out_clips=6, workers=2)
    assert again.content_hash == opened.content_hash and torch.equal(
        again.mel_mean, opened.mel_mean
    )
    plan = BatchPlan([item.n_frames for item in opened.train], batch_clips=8, seed=3)
    inline, ahead = (list(load_ahead(opened, plan.parts(2, 8), workers)) for workers in (0, 2))
    assert [batch.ids for batch in ahead] == [batch.ids for batch in inline] and len(ahead) == 6
    assert all(
        torch.equal(a.mel, b.mel) and torch.equal(a.phonemes, b.phonemes)
        for a, b in zip(ahead, inline, strict=True)
    )


def test_broken_clips_are_listed_and_left_out(folder, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(folder, root)
    (root / "wavs" / "c00003.wav").write_bytes(b"RIFF")
    (root / "alignments" / "c00004.TextGrid").write_text("nonsense")
    (root / "wavs" / "c00005.wav").unlink()
    (root / "wavs" / "c00006.wav").unlink()
    (root / "wavs" / "c00006.wav").mkdir()
    (root / "train.txt").write_text(
        "\n".join(f"c{index:05d}" for index in range(20)) + "\nnobody\n"
    )
    (root / "held_out.txt").write_text("c00030\nc00031\n")
    opened = open_corpus(root, AUDIO, FeatureCache(tmp_path / "cache"))
    assert {rejection.id for rejection in opened.rejected} == {
        "c00003",
        "c00004",
        "c00005",
        "c00006",
        "nobody",
    }
    assert all("\n" not in rejection.reason and rejection.reason for rejection in opened.rejected)
    assert len(opened.train) == 16 and [item.entry.id for item in opened.held_out] == [
        "c00030",
        "c00031",
    ]


@pytest.mark.parametrize("workers", (0, 2))
def test_a_full_disk_stops_the_run_with_its_reason_and_no_clip_is_blamed(
    folder, tmp_path, monkeypatch, workers
):
    """Nor are the other clips computed, only to be lost."""
    computed = tmp_path / "computed"

    def full_disk(file, **arrays):
        with computed.open("a") as count:  # by loader processes too
            count.write("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(
        CacheError,
        match=(
            r"^\S*cache: features cannot be stored \(\[Errno 28\] No space left on device\); make"
            r" room"
        ),
    ):
        open_corpus(folder, AUDIO, FeatureCache(tmp_path / "cache"), workers=workers)
    assert len(computed.read_text()) < N_CLIPS / 2


def test_every_process_hears_that_another_ones_disk_is_full(folder, cache):
    class Second(Place):
        def gather(self, value):
            return [[CacheError("full")], value]

    with pytest.raises(CacheError, match="full"):
        open_corpus(folder, AUDIO, cache, place=Second(rank=1, world=2))


def test_content_hash_follows_the_files(folder, opened, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(folder, root)
    cache = FeatureCache(tmp_path / "cache")
    assert open_corpus(root, AUDIO, cache, held_out_clips=6).content_hash == opened.content_hash
    shutil.copyfile(root / "wavs" / "c00001.wav", root / "wavs" / "c00000.wav")
    (root / "alignments" / "c00000.TextGrid").write_bytes(
        (root / "alignments" / "c00001.TextGrid").read_bytes()
    )
    assert open_corpus(root, AUDIO, cache, held_out_clips=6).content_hash != opened.content_hash


def test_a_damaged_cache_entry_is_made_again_during_a_training_and_a_changed_wav_is_refused(
    folder, tmp_path
):
    root = tmp_path / "corpus"
    shutil.copytree(folder, root)
    opened = open_corpus(root, AUDIO, FeatureCache(tmp_path / "cache"), held_out_clips=6)
    item, path = opened.train[0], opened.cache.path(opened.train[0].key)
    before = opened.load(item)
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(opened.load(item).mel, before.mel) and np.array_equal(
        opened.load(item).durations, before.durations
    )
    path.unlink()
    shutil.copyfile(opened.train[1].entry.wav, item.entry.wav)
    with pytest.raises(WorkbookError, match="changed during the training"):
        opened.load(item)


def test_a_corpus_too_small_to_be_divided_says_so(tmp_path):
    root = make_tiny_corpus(tmp_path / "corpus", 3)
    with pytest.raises(
        WorkbookError, match=r"0 usable clips to train on and 3 to validate on.*--held-out-clips"
    ):
        open_corpus(root, AUDIO, FeatureCache(tmp_path / "cache"))
