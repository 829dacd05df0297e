"""Log durations are told by their sums, an expanded memory by its runs of equal rows."""

import numpy as np
import pytest
import torch

from tts_workbook.measure.expanded_memory import expanded_lengths
from tts_workbook.measure.log_durations import written_as_logs
from tts_workbook.measure.seen_clips import SeenClip
from tts_workbook.subject.module_calls import Call
from tts_workbook.subject.subject import SubjectError

COUNTS = [np.array([3.0, 5.0, 2.0, 10.0]), np.array([4.0, 1.0, 7.0])]


def clip(durations, n_frames):
    return SeenClip(torch.zeros(n_frames, 4), None, durations, None)


def clips(change=lambda counts: counts):
    """Two clips whose durations are changed, but not their frames."""
    return [clip(change(counts), int(counts.sum())) for counts in COUNTS]


@pytest.mark.parametrize(
    "change, name",
    [
        (np.log1p, "expm1"),
        (np.log, "exp"),
        (np.log2, "exp2"),
        (lambda counts: counts, ""),
        (lambda counts: counts / 3, ""),
    ],
)
def test_logarithms_are_told_by_what_they_add_up_to(change, name):
    assert written_as_logs(clips(change)) == name


def test_clips_without_durations_say_what_is_wanted():
    with pytest.raises(SubjectError, match=r"Subject\.durations"):
        written_as_logs([clip(None, 5)])


def expanded(repeats):
    """A batch (2, T, 6) in which each symbol's row is repeated, zeros behind the shorter clip."""
    rows = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    parts = [
        torch.repeat_interleave(own[: len(counts)], torch.tensor(counts), dim=0)
        for own, counts in zip(rows, repeats, strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)


def test_the_expanded_memory_is_found_behind_other_tensors():
    memory = expanded([[3, 5, 2, 10], [4, 1, 7]])
    calls = [
        Call("text", (torch.ones(2, 4, dtype=torch.long),), (torch.randn(2, 4, 6),)),
        Call("decoder", (memory,), (torch.randn(2, 20, 6),)),
    ]
    assert expanded_lengths(calls, clips()) == [20, 12]
    assert expanded_lengths(calls[:1], clips()) is None


def test_durations_of_one_frame_each_are_no_expanded_memory():
    assert (
        expanded_lengths([Call("x", (expanded([[1, 1, 1, 1], [1, 1, 1]]),), ())], clips()) is None
    )
