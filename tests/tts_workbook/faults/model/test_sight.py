"""model.no_causal_mask and model.no_right_shift: which frames the decoder sees."""

from torch import nn
from torch.nn import functional as F

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Speaker,
    blamed,
    findings,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.diagnosis.tiny_subject import M
from tests.tts_workbook.faults.judged import OF_THE_MODEL


def model_of(kind, **fields):
    return findings(speaker_lab(kind, **fields), *OF_THE_MODEL, "model.bad_initialisation")


class Seeing(Speaker):
    """Takes something of the batch's frames into the history."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def forward(self, batch):
        return super().forward({**batch, "mel": self.see(batch["mel"])})


class Corrected(Speaker):
    """A convolution over five frames behind the output: it looks ahead by two, as a post-net
    may.
    """

    def __init__(self):
        super().__init__()
        self.post = nn.Conv1d(M, M, 5, padding=2)

    def frames(self, batch):
        return super().forward(batch)

    def forward(self, batch):
        frames = self.frames(batch)
        return frames + self.post(frames.transpose(1, 2)).transpose(1, 2)


def frames(model, batch):
    return (model.frames if isinstance(model, Corrected) else model)(batch).float()


def test_future_frames_and_the_own_frame():
    later = model_of(with_parts(Seeing, see=lambda mel: mel + mel.flip(1)), predict_frames=frames)
    own = model_of(
        with_parts(Seeing, see=lambda mel: F.pad(mel, (0, 0, -1, 1))), predict_frames=frames
    )
    assert (
        blamed(later) == {"model.no_causal_mask"}
        and later["model.no_causal_mask"].level == "confirmed"
    )
    assert (
        blamed(own) == {"model.no_right_shift"} and own["model.no_right_shift"].level == "confirmed"
    )


def test_a_post_net_that_is_not_declared_is_only_suspected_and_a_declared_one_is_silent():
    undeclared = model_of(Corrected)["model.no_causal_mask"]
    assert undeclared.level == "suspected" and "Subject.predict_frames" in undeclared.experiment
    assert not blamed(model_of(Corrected, predict_frames=frames))


def test_a_history_of_older_frames_is_silent():
    assert not blamed(
        model_of(
            with_parts(
                Seeing, see=lambda mel: F.pad(mel, (0, 0, 1, -1)) + F.pad(mel, (0, 0, 5, -5))
            )
        )
    )
