"""Small trials on one short clip, and results written by hand."""

import dataclasses

from tts_core.config import AudioConfig, preset
from tts_core.speech.bundled import bundled_voice
from tts_core.speech.dataset import Corpus, load_corpus
from tts_core.trials.arms import change
from tts_core.trials.run import Result
from tts_core.trials.trial import ClipReference, Trial, make_trial

SHORT_CLIP = "queue-thankyou"      # 138 frames
VOLATILE = ("seconds",)            # measures that the clock decides


def short_corpus(*ids: str) -> Corpus:
    return load_corpus(bundled_voice("allison"), AudioConfig(), ids=list(ids) or [SHORT_CLIP])


def smoke_trial(corpus: Corpus, preset_name: str = "healthy", steps: int = 3, lr: float | None = None, seed: int = 0,
                changes=None, **options) -> Trial:
    """A trial of a preset at smoke size over all clips of `corpus`; `changes` as in `arms.change`."""
    experiment = preset(preset_name, corpus.vocabulary.get_vocab_size(), "smoke", steps=steps, lr=lr, seed=seed,
                        precision="fp32")
    return make_trial(corpus.clips, corpus.vocabulary, change(experiment, changes or {}), **options)


def made_result(arm: str, clip: str = "a", seed: int = 0, failed: str = "", **measures: float | None) -> Result:
    """A result that no training made: arm `arm` on clip `clip`."""
    experiment = preset("healthy", 12, "smoke", steps=100, seed=seed)
    trial = Trial(experiment, (ClipReference("voice", clip, "en", "0" * 12),), ("a", "b"), name=arm)
    return Result(trial, dict(measures), {"over_constant": [1.0, 0.5]}, failed)


def numbers(result: Result) -> Result:
    """The result without what the clock, the machine and the thread count say."""
    return dataclasses.replace(result, provenance={}, measures={name: value for name, value in result.measures.items()
                                                                if name not in VOLATILE})
