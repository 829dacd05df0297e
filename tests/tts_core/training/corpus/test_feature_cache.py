"""The feature cache: what is in it equals what would be computed; nothing stale, half-written or
damaged is ever used.
"""

import dataclasses
import errno
import os

import numpy as np
import pytest
import torch

from tests.tts_core.training.corpus.tiny_corpus import make_tiny_corpus
from tts_core.config import AudioConfig
from tts_core.errors import CacheError, WorkbookError
from tts_core.speech.dataset import load_corpus, read_clip
from tts_core.speech.folder import scan_folder
from tts_core.training.corpus import feature_cache
from tts_core.training.corpus.feature_cache import FeatureCache

AUDIO = AudioConfig()


@pytest.fixture
def folder(tmp_path):
    return scan_folder(make_tiny_corpus(tmp_path / "corpus", 3))


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def same(a, b) -> bool:
    return (
        torch.equal(a.mel, b.mel)
        and np.array_equal(a.durations, b.durations)
        and tuple(a.phonemes) == tuple(b.phonemes)
    )


def test_an_entry_is_bitwise_what_would_be_computed_and_is_not_computed_again(
    folder, cache, monkeypatch
):
    entry = folder.entries[0]
    fresh = read_clip(entry, folder, AUDIO)
    key, first = cache.features(entry, folder, AUDIO)
    monkeypatch.setattr(feature_cache, "read_clip", lambda *_: pytest.fail("computed again"))
    again = cache.features(entry, folder, AUDIO)
    assert same(first, fresh) and same(again[1], fresh) and again[0] == key
    assert again[1].alignment == "textgrid" and again[1].mel.dtype == torch.float32


def test_whatever_a_clip_is_made_from_changes_its_key(folder, cache, monkeypatch):
    entry, other = folder.entries[:2]
    keys = {cache.key(entry, folder, AUDIO)}

    def is_new(key) -> bool:
        return len(keys) < len(keys | {key}) and not keys.add(key)

    for recipe in (
        AudioConfig.seed(),
        dataclasses.replace(AUDIO, f_max=7000.0),
        dataclasses.replace(AUDIO, log_floor=2e-5),
    ):
        assert is_new(cache.key(entry, folder, recipe))
    assert is_new(cache.key(entry, dataclasses.replace(folder, language="en-us"), AUDIO))
    entry.textgrid.write_text(entry.textgrid.read_text().replace('"', '"', 1) + "\n")
    assert is_new(cache.key(entry, folder, AUDIO))
    entry.wav.write_bytes(other.wav.read_bytes())
    assert is_new(cache.key(entry, folder, AUDIO))
    monkeypatch.setattr(feature_cache, "CACHE_FORMAT", feature_cache.CACHE_FORMAT + 1)
    assert is_new(cache.key(entry, folder, AUDIO))
    monkeypatch.setattr(feature_cache, "_version", lambda package: "0")
    assert is_new(cache.key(entry, folder, AUDIO))


def test_the_text_counts_where_it_decides_the_alignment(folder, cache):
    entry = folder.entries[0]
    reworded = dataclasses.replace(entry, text="she saw it")
    # the TextGrid says what was spoken
    assert cache.key(entry, folder, AUDIO) == cache.key(reworded, folder, AUDIO)
    entry.textgrid.unlink()
    key = cache.key(entry, folder, AUDIO)
    assert key != cache.key(reworded, folder, AUDIO)
    assert key != cache.key(
        entry, dataclasses.replace(folder, dictionary={"saw": (("S", "AO"),)}), AUDIO
    )
    assert key == cache.key(
        entry, dataclasses.replace(folder, dictionary={"zebra": (("Z",),)}), AUDIO
    )


def test_a_changed_recording_is_never_answered_with_its_old_features(folder, cache):
    entry, other = folder.entries[:2]
    _, old = cache.features(entry, folder, AUDIO)
    for source, target in ((other.wav, entry.wav), (other.textgrid, entry.textgrid)):
        target.write_bytes(source.read_bytes())
    _, new = cache.features(entry, folder, AUDIO)
    assert same(new, read_clip(other, folder, AUDIO)) and not same(new, old)


@pytest.mark.parametrize(
    "damage",
    (
        "truncated",
        "empty",
        "flipped early",
        "flipped in the mel",
        "garbage",
        "another entry",
        "pickle",
        "encrypted",
    ),
)
def test_a_damaged_entry_is_computed_again_and_mended(folder, cache, damage):
    entry, other = folder.entries[:2]
    key, fresh = cache.features(entry, folder, AUDIO)
    path = cache.path(key)
    content = bytearray(path.read_bytes())
    if damage == "another entry":
        path.write_bytes(cache.path(cache.features(other, folder, AUDIO)[0]).read_bytes())
    elif damage == "pickle":
        np.savez(path, key=np.array([object()]), mel=1)
    else:
        content[len(content) // 2] ^= 1 if "mel" in damage else 0
        content[0] ^= 255 if "early" in damage else 0
        # one bit of the directory
        content[content.index(b"PK\x01\x02") + 8] ^= 1 if damage == "encrypted" else 0
        path.write_bytes(
            {"truncated": content[:-200], "empty": b"", "garbage": b"x" * 5000}.get(
                damage, bytes(content)
            )
        )
    assert cache.get(key) is None
    assert same(cache.features(entry, folder, AUDIO)[1], fresh)
    assert same(cache.get(key), fresh)


def test_a_write_that_fails_leaves_nothing_behind_and_names_the_folder(folder, cache, monkeypatch):
    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(CacheError, match=r"cache: features cannot be stored.*No space left"):
        cache.features(folder.entries[0], folder, AUDIO)
    assert [path for path in cache.root.rglob("*") if path.is_file()] == []
    with pytest.raises(CacheError, match="No space left"):  # no clip may be missing for it
        load_corpus(folder.root, AUDIO, read=cache.read)


@pytest.mark.parametrize(
    "number, of_the_clip",
    ((errno.EMFILE, False), (errno.EIO, False), (errno.EACCES, True), (errno.ENOENT, True)),
)
def test_a_failing_system_is_told_from_a_broken_clip(
    folder, cache, monkeypatch, number, of_the_clip
):
    def fails(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(feature_cache, "read_clip", fails)
    with pytest.raises(OSError if of_the_clip else CacheError, match=os.strerror(number)):
        cache.features(folder.entries[0], folder, AUDIO)


def test_a_clip_that_changes_while_it_is_read_is_not_stored(folder, cache, monkeypatch):
    entry, other = folder.entries[:2]

    def read(entry, folder, audio, *helpers):
        clip = read_clip(entry, folder, audio)
        entry.wav.write_bytes(other.wav.read_bytes())
        return clip

    monkeypatch.setattr(feature_cache, "read_clip", read)
    with pytest.raises(WorkbookError, match="changed while it was read"):
        cache.features(entry, folder, AUDIO)
    assert list(cache.root.rglob("*.npz")) == []


def test_a_corpus_loaded_through_the_cache_is_the_same(folder, cache):
    plain = load_corpus(folder.root, AUDIO)
    for _ in ("cold", "warm"):
        cached = load_corpus(folder.root, AUDIO, read=cache.read)
        assert cached.content_hash == plain.content_hash
        for a, b in zip(cached.clips, plain.clips, strict=True):
            assert (
                same(a, b)
                and np.array_equal(a.samples, b.samples)
                and np.array_equal(a.phoneme_ids, b.phoneme_ids)
            )
            assert (a.id, a.text, a.path, a.alignment, a.sample_rate) == (
                b.id,
                b.text,
                b.path,
                b.alignment,
                b.sample_rate,
            )
