"""Two processes are one: gradients, losses and counts of DDP equal those of one process with the
same clips.
"""

import pytest
import torch
from torch import multiprocessing

from tests.tts_core.training.ranks import run_rank, step_of

CASES = {
    "plain": {},
    "checkpointing": {"checkpointing": True},
    "steps": {"steps": 3},
    "broken": {"broken_rank": 1},
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, dict]]:
    """What each of two processes saw, by case; they are started once, which is what takes time."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(
        run_rank, (2, str(folder / "rendezvous"), str(folder / "rank"), CASES), nprocs=2
    )
    return [torch.load(folder / f"rank.{rank}") for rank in range(2)]


@pytest.mark.parametrize("case", ("plain", "checkpointing"))
def test_gradients_and_losses_of_two_processes_equal_one_with_the_same_clips(ranks, case):
    """Unequal clips, frames and phonemes per process, two micro-batches each: means run over the
    values of all.
    """
    one = step_of(0, 1)
    for rank in ranks:
        assert rank[case]["reports"][0] == pytest.approx(one["reports"][0], rel=1e-9)
        assert rank[case]["reports"][0]["valid_frames"] == 1090
        for name, gradient in one["moved"].items():
            torch.testing.assert_close(
                rank[case]["moved"][name], gradient, rtol=1e-7, atol=1e-11, msg=name
            )
    # there is something to compare
    assert max(float(gradient.abs().max()) for gradient in one["moved"].values()) > 1e-2


def test_processes_stay_bitwise_equal_over_steps(ranks):
    """Only gradients travel: weights that drift apart would never meet again."""
    first, second = (rank["steps"] for rank in ranks)
    assert len(first["reports"]) == 3 and first["reports"] == second["reports"]
    assert all(torch.equal(first["moved"][name], second["moved"][name]) for name in first["moved"])


def test_a_process_whose_own_loss_is_finite_blames_no_clip_of_its_own(ranks):
    first, second = (rank["broken"]["raised"] for rank in ranks)
    assert "the loss of another process is not finite" in first and "batch" not in first
    assert (
        "the loss of batch clip0 is not finite in fp32; the first non-finite output is that of"
        " module mel_projection_in" in second
    )


def test_no_process_ends_before_the_others_know_what_to_say(ranks):
    """torchrun kills all with the first that ends; the search for the broken module takes one of
    them a second longer.
    """
    first, second = (rank["broken"]["at"] for rank in ranks)
    assert abs(first - second) < 0.8
