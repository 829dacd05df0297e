"""The plan of a training: every clip once an epoch, like lengths together, equal on all processes;
and the learning rate.
"""

import math

import numpy as np
import pytest

from tts_core.errors import WorkbookError
from tts_core.training.corpus.options import TrainConfig
from tts_core.training.corpus.sampler import BatchPlan
from tts_core.training.corpus.warm_up import learning_rate

LENGTHS = np.random.default_rng(5).integers(20, 900, 1003)


def plan(seed=0, batch=16, pool=20, lengths=LENGTHS) -> BatchPlan:
    return BatchPlan(lengths, batch, pool, seed)


@pytest.mark.parametrize("world, micro_batches", ((1, 1), (2, 1), (3, 2)))
def test_every_clip_once_an_epoch_over_all_processes(world, micro_batches):
    made = plan()
    for epoch in range(2):
        steps = range(epoch * made.steps_per_epoch, (epoch + 1) * made.steps_per_epoch)
        seen = [
            index
            for step in steps
            for rank in range(world)
            for part in made.parts_of(step, rank, world, micro_batches)
            for index in part
        ]
        assert sorted(seen) == list(range(len(LENGTHS)))


def test_the_clips_of_a_step_do_not_depend_on_how_they_are_divided():
    for step in (0, 7, 70):
        whole = sorted(plan().parts_of(step, 0, 1, 1)[0])
        divided = sorted(
            index
            for rank in range(2)
            for part in plan().parts_of(step, rank, 2, 3)
            for index in part
        )
        assert divided == whole
        sizes = [len(part) for rank in range(2) for part in plan().parts_of(step, rank, 2, 3)]
        assert max(sizes) - min(sizes) <= 1


def test_batches_are_full_and_hold_like_lengths():
    made = plan()
    batches = [made.clips_of(step) for step in range(made.steps_per_epoch)]
    assert max(map(len, batches)) == 16 and min(map(len, batches)) == made.smallest_batch >= 15
    padded = sum(LENGTHS[batch].max() * len(batch) for batch in batches)
    assert LENGTHS.sum() / padded > 0.93
    mixed = np.array_split(np.random.default_rng(0).permutation(len(LENGTHS)), made.steps_per_epoch)
    # what bucketing saves
    assert LENGTHS.sum() / sum(LENGTHS[batch].max() * len(batch) for batch in mixed) < 0.7


def test_the_micro_batches_of_one_process_hold_like_lengths():
    made = plan(batch=32, pool=1)  # no bucketing: what is left to gain inside a step
    parts = [
        LENGTHS[part]
        for step in range(made.steps_per_epoch)
        for part in made.parts_of(step, 0, 1, 4)
    ]
    assert sum(map(np.sum, parts)) == LENGTHS.sum()
    assert LENGTHS.sum() / sum(len(part) * part.max() for part in parts) > 0.8


def test_order_is_a_function_of_seed_and_epoch():
    a, b, other = plan(), plan(), plan(seed=1)
    n = a.steps_per_epoch
    late = b.clips_of(3 * n + 2)  # asked for out of order
    assert np.array_equal(late, a.clips_of(3 * n + 2))
    assert all(np.array_equal(a.clips_of(step), b.clips_of(step)) for step in range(2 * n))
    assert not all(np.array_equal(a.clips_of(step), other.clips_of(step)) for step in range(n))
    assert not all(np.array_equal(a.clips_of(step), a.clips_of(n + step)) for step in range(n))
    lengths = [LENGTHS[a.clips_of(step)].mean() for step in range(n)]
    # batches are shuffled, not short ones first
    assert abs(np.corrcoef(lengths, range(n))[0, 1]) < 0.5


def test_parts_go_on_in_the_middle():
    made = plan()
    assert list(made.parts(0, 9, 1, 2, 2))[4 * 2 :] == list(made.parts(4, 9, 1, 2, 2))


def test_too_few_clips_for_the_processes_are_named_with_the_way_out():
    with pytest.raises(
        WorkbookError, match=r"as few as 3 clips.*2 processes with 2 micro-batches.*--batch-clips 4"
    ):
        plan(lengths=[10, 20, 30]).parts_of(0, 0, 2, 2)
    with pytest.raises(WorkbookError, match="no clips"):
        plan(lengths=[])


def test_learning_rate_rises_then_falls_on_a_half_cosine():
    config = TrainConfig(steps=110, warmup_steps=10, final_lr_share=0.1)
    rates = [learning_rate(config, 2.0, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0) and rates[9] == 2.0
    assert rates[59] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way
    assert rates[34] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert rates[-1] == pytest.approx(0.2)
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)


def test_no_warm_up_starts_near_the_peak_and_a_share_of_one_is_constant():
    assert learning_rate(TrainConfig(steps=100, warmup_steps=0), 1.0, 0) == pytest.approx(
        1.0, rel=1e-3
    )
    constant = TrainConfig(steps=100, warmup_steps=0, final_lr_share=1.0)
    assert {learning_rate(constant, 1.0, step) for step in range(100)} == {1.0}
