"""Shared fixtures: one thread (the same bits in each run on one machine), small synthetic batches,
the bundled voice loaded once; and which tests are for `make test-full` alone.
"""

from dataclasses import replace
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

# Long, and with all processors busy: nothing runs beside them.
ALONE = (
    "benchmarks/test_smoke_matrix.py",
    "browser",
    "notebooks/test_batch_notebook.py",
    "notebooks/test_other_language.py",
    "notebooks/test_quick_run.py",
    "notebooks/test_sweep_notebook.py",
    "tts_workbook/trials/test_dask_executor.py",
)
# Long: subjects of the benchmark trained, trainings that are killed, all kernels of many notebooks.
LONG = (
    "benchmarks/planted/test_twins.py",
    "tts_core/training/corpus/test_run.py",
    "tts_workbook/diagnosis/test_presets_blind.py",
    "tts_workbook/faults/test_planted_in_models.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves out what is marked `full`; `alone` has the processors to itself."""
    folder = ROOT / "tests"
    for item in items:
        if not item.path.is_relative_to(folder):  # a notebook
            continue
        where = item.path.relative_to(folder).as_posix()
        if where.startswith((*ALONE, *LONG)):
            item.add_marker(pytest.mark.full)
        if where.startswith(ALONE):
            item.add_marker(pytest.mark.alone)


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
    n_clips = len(durations)
    n_phonemes, lengths = [len(row) for row in durations], [sum(row) for row in durations]
    mel = torch.full((n_clips, max(lengths), n_mels), AudioConfig().silence, dtype=dtype)
    phonemes = torch.zeros(n_clips, max(n_phonemes), dtype=torch.long)
    frames = torch.zeros_like(phonemes)
    for clip, row in enumerate(durations):
        n, length = n_phonemes[clip], lengths[clip]
        steps = torch.randn(length, n_mels, generator=generator, dtype=torch.float64)
        mel[clip, :length] = (steps.cumsum(dim=0) * 0.3 - 5).to(dtype)
        phonemes[clip, :n] = torch.randint(PAUSE_ID + 1, VOCAB_SIZE, (n,), generator=generator)
        frames[clip, :n] = torch.tensor(row)
    return Batch(
        phonemes=phonemes,
        phoneme_lengths=torch.tensor(n_phonemes),
        durations=frames,
        mel=mel,
        mel_lengths=torch.tensor(lengths),
        ids=tuple(f"clip{clip}" for clip in range(n_clips)),
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
    experiment = preset(name, VOCAB_SIZE, "smoke", steps=steps, lr=lr)
    return replace(experiment, model=replace(experiment.model, **model_changes))


def make_model(experiment: ExperimentConfig, batch: Batch, seed: int = 0) -> TTSModel:
    """A fresh model for the batch, its normaliser set from the batch's mels."""
    lengths = batch.mel_lengths.tolist()
    mels = [mel[:length] for mel, length in zip(batch.mel, lengths, strict=True)]
    return build_model(experiment.model, experiment.audio, mels, seed)
