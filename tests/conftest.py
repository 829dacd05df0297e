"""Shared fixtures: one thread (the same bits everywhere), small synthetic batches, the bundled
voice loaded once.
"""

from pathlib import Path

import pytest
import torch

from tests.corpora import TEXT_0880, make_corpus
from tts_core.config import AudioConfig, ExperimentConfig, preset
from tts_core.model.tts import TTSModel, build_model
from tts_core.speech.batch import Batch
from tts_core.speech.dataset import Corpus, load_corpus

ROOT = Path(__file__).resolve().parents[1]
VOCAB_SIZE = 12
PAUSE_ID = 1


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(1234)


@pytest.fixture(scope="session")
def librivox() -> Corpus:
    """The default voice, five read sentences."""
    return load_corpus(ROOT / "data_samples" / "librivox", AudioConfig())


@pytest.fixture
def corpus_of_two(tmp_path: Path) -> Path:
    """Two clips with TextGrids, `one` and `two`, both sentence 0880."""
    return make_corpus(
        tmp_path / "corpus", f"one|{TEXT_0880}\ntwo|{TEXT_0880}\n", "one", "two", textgrids=True
    )


def make_batch(
    durations: list[list[int]], seed: int = 0, n_mels: int = 80, dtype: torch.dtype = torch.float32
) -> Batch:
    """A batch of smooth random log-mels with the given frames per phoneme, one list per clip."""
    generator = torch.Generator().manual_seed(seed)
    n_phonemes, lengths = [len(row) for row in durations], [sum(row) for row in durations]
    mel = torch.full((len(durations), max(lengths), n_mels), AudioConfig().silence, dtype=dtype)
    phonemes = torch.zeros(len(durations), max(n_phonemes), dtype=torch.long)
    frames = torch.zeros_like(phonemes)
    for b, row in enumerate(durations):
        walk = (
            torch.randn(lengths[b], n_mels, generator=generator, dtype=torch.float64).cumsum(dim=0)
            * 0.3
            - 5
        )
        mel[b, : lengths[b]] = walk.to(dtype)
        phonemes[b, : len(row)] = torch.randint(
            PAUSE_ID + 1, VOCAB_SIZE, (len(row),), generator=generator
        )
        frames[b, : len(row)] = torch.tensor(row)
    return Batch(
        phonemes=phonemes,
        phoneme_lengths=torch.tensor(n_phonemes),
        durations=frames,
        mel=mel,
        mel_lengths=torch.tensor(lengths),
        ids=tuple(f"clip{b}" for b in range(len(durations))),
        pad_value=AudioConfig().silence,
    )


@pytest.fixture
def batch() -> Batch:
    """Two clips of different length: 3 + 4 phonemes, 9 and 14 frames."""
    return make_batch([[2, 3, 4], [5, 1, 4, 4]])


def make_experiment(
    name: str = "healthy", lr: float | None = None, steps: int = 20, **model_changes
) -> ExperimentConfig:
    """A smoke-size experiment of the synthetic vocabulary with some model fields changed."""
    import dataclasses

    experiment = preset(name, VOCAB_SIZE, "smoke", steps=steps, lr=lr)
    return dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, **model_changes)
    )


def make_model(experiment: ExperimentConfig, batch: Batch, seed: int = 0) -> TTSModel:
    mels = [mel[:length] for mel, length in zip(batch.mel, batch.mel_lengths.tolist())]
    return build_model(experiment.model, experiment.audio, mels, seed)
