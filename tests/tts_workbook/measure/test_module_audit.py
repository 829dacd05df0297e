"""One step module by module, and other ways to write a batch, on a model of a few hundred
weights.
"""

import pytest
import torch

from tests.tts_workbook.diagnosis.tiny_subject import Tiny, lab, losses, make_batch
from tts_workbook.measure.equivalence import compare_batches
from tts_workbook.measure.module_audit import audit_modules
from tts_workbook.measure.module_groups import grouped
from tts_workbook.subject.subject import SubjectError
from tts_workbook.subject.tensor_math import tensors_norm


def two_terms(model, batch):
    """The mel error, and one of the memory that does not reach what reads it."""
    terms = losses(model, batch)
    memory = model.encode(batch["text"]).square().mean()
    return {"mel": terms["mel"], "memory": memory, "total": terms["mel"] + 0.25 * memory}


def test_norms_shares_and_weights_are_those_of_the_gradients():
    here = lab(losses=two_terms)
    audit = audit_modules(here)
    gradient = here.gradient(here.build(), term="mel")
    assert audit.norm["mel"]["out"] == pytest.approx(
        tensors_norm([gradient["out.weight"], gradient["out.bias"]])
    )
    assert (
        audit.norm["memory"]["out"] == 0.0 < audit.norm["memory"]["encoder.0"]
        and not audit.unreached
    )
    assert (
        audit.weights == pytest.approx({"mel": 1.0, "memory": 0.25}, rel=1e-4)
        and audit.unshown < 1e-6
    )
    assert audit.shared == ["text", "encoder.0", "encoder.3"] and audit.mel_terms == ["mel"]
    for path in audit.shared:
        mel, memory = audit.norm["mel"][path], 0.25 * audit.norm["memory"][path]
        assert audit.share["memory"][path] == pytest.approx(memory / (mel + memory), rel=1e-3)
        assert audit.share["mel"][path] + audit.share["memory"][path] == pytest.approx(1.0)
        assert -1 <= audit.cosine["mel", "memory"][path] <= 1
    assert audit.share["memory"]["out"] == 0.0 and "out" not in audit.cosine["mel", "memory"]


def test_the_update_is_that_of_the_subjects_own_step():
    found = audit_modules(lab()).update_ratio
    here = lab()
    model, before = here.build(), here.build()
    gradient = here.gradient(model)
    norm = min(1.0, 1.0 / tensors_norm(gradient.values()))  # the workbook's own step clips at 1
    names = ("out.weight", "out.bias")
    moved = 0.05 * norm * tensors_norm([gradient[name] for name in names])
    weights = tensors_norm([dict(before.named_parameters())[name].detach() for name in names])
    assert found["out"] == pytest.approx(moved / weights, rel=1e-4)
    nothing = audit_modules(lab(train_step=lambda model, optimizer, batch: None))
    assert nothing.update_ratio == {}


def test_what_is_unreached_is_named_unless_it_is_declared():
    class WithSpare(Tiny):
        def __init__(self):
            super().__init__()
            self.spare = torch.nn.Linear(2, 2)

    assert audit_modules(lab(WithSpare)).unreached == ("spare.weight", "spare.bias")
    declared = audit_modules(lab(WithSpare, frozen=("spare",)))
    assert declared.unreached == () and declared.n_trained == audit_modules(lab()).n_trained


def test_many_modules_are_taken_together_by_their_common_paths():
    names = [f"stack.{index}.{part}.weight" for index in range(30) for part in ("a", "b")] + [
        "scale"
    ]
    assert len(grouped(names, 100)) == 61 and next(iter(grouped(names, 100))) == "stack.0.a"
    assert len(grouped(names, 31)) == 31 and grouped(names, 31)["stack.7"] == [
        "stack.7.a.weight",
        "stack.7.b.weight",
    ]
    assert list(grouped(names, 2)) == ["stack", "scale"] and sum(
        map(len, grouped(names, 2).values())
    ) == len(names)


def test_a_mean_does_not_notice_copies_and_a_sum_does():
    copies = {
        k: {name: torch.cat([value] * k) for name, value in make_batch().items()} for k in (2, 8)
    }
    found = compare_batches(lab(), copies, "duplicate")
    assert (
        found.verdict == "supported"
        and found.largest <= found.bar < 1e-3
        and 0 < found.floor.gradient < 1e-4
    )

    def summed(model, batch):
        return {"total": losses(model, batch)["total"] * len(batch["lengths"])}

    found = compare_batches(lab(losses=summed), copies, "duplicate")
    assert found.verdict == "refuted" and [found.changes[k].loss for k in (2, 8)] == pytest.approx(
        [1.0, 7.0], rel=1e-4
    )
    assert found.changes[8].gradient == pytest.approx(7.0, rel=1e-3)


def test_a_difference_of_the_size_of_16_bit_sums_decides_nothing_and_no_loss_names_the_part():
    batch = make_batch()
    nearly = {**batch, "mel": batch["mel"] * 1.002}
    assert compare_batches(lab(), {2: nearly}, "duplicate").verdict == "undecided"
    with pytest.raises(SubjectError, match=r"Subject\.pad: a batch with a loss of nan"):
        compare_batches(lab(), {2: {**batch, "mel": batch["mel"] * float("nan")}}, "pad")
