"""Whether the prediction hears its text: what `model.text_ignored` and `model.bad_initialisation`
decide by.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tts_workbook.lab.lab import Lab
from tts_workbook.lab.run_changes import reinitialise
from tts_workbook.measure.anatomy import anatomy
from tts_workbook.measure.initial_weights import odd_weights
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.module_calls import outputs_changed, with_noise
from tts_workbook.subject.opened import once_per_subject

# wrong text that moves the prediction by less, in target deviations, does not reach it
DEAF = 1e-3
HEARD_AGAIN = 10.0  # times that, after a default initialisation: the text is heard again

EXPERIMENT = (
    "noise on what the text embedding gives, as large as its output; fresh and after training"
)


@dataclass(frozen=True)
class Hearing:
    """How far the prediction moves under other text, in target deviations."""

    fresh: float
    trained: float
    # fresh, with the weights of odd size drawn anew; None where there are none, or it is not deaf
    redrawn: float | None = None
    oddest: str = ""  # of the modules whose weights were drawn anew

    @property
    def deaf(self) -> bool:
        """Before training and after it."""
        return self.fresh < DEAF and self.trained < DEAF

    @property
    def heard_when_initialised(self) -> bool:
        """It is deaf by its initialisation alone."""
        return self.deaf and self.redrawn is not None and self.redrawn > HEARD_AGAIN * DEAF

    @property
    def evidence(self) -> dict[str, float | str]:
        return {
            "move of the prediction under other text, fresh": self.fresh,
            "move of the prediction under other text, trained": self.trained,
        }


@once_per_subject
def hearing(lab: Lab) -> Hearing | None:
    """What the text embeddings give is disturbed, before and after training; None where nothing
    reads text.
    """
    if not anatomy(lab).embeddings:
        return None
    fresh = text_movement(lab, lab.model)
    heard = Hearing(fresh, text_movement(lab, lab.course().model))
    odd = odd_weights(lab) if heard.deaf else {}
    if not odd:
        return heard
    model = lab.build()
    change = reinitialise(odd).model
    assert change is not None
    change(model)
    return Hearing(heard.fresh, heard.trained, text_movement(lab, model), next(iter(odd)))


def text_movement(lab: Lab, model: nn.Module) -> float:
    """Root mean square move of the prediction, in target deviations, when the text embeddings'
    outputs are disturbed.
    """
    modules = dict(model.named_modules())
    with without_dropout(model):
        before = lab.predict(model, field="mel")
        with outputs_changed(
            (modules[name], lambda tensor: with_noise(tensor, 1))
            for name in anatomy(lab).embeddings
        ):
            after = lab.predict(model, field="mel")
    return float((after - before)[lab.mask].square().mean().sqrt() / lab.frames.std())
