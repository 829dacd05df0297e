"""model.memory_scale: a memory far above unit scale, made so by its module or by bare code behind
it.
"""

import pytest

from tests.tts_workbook.diagnosis.tiny_speaker import (
    Gain,
    Speaker,
    adam,
    speaker_lab,
    with_parts,
)
from tests.tts_workbook.faults.judged import confirmed, tried_in_vain


def test_memory_scale():
    """Far above unit scale, beside a decay that can be seen and does no harm."""
    bench = speaker_lab(with_parts(memory=lambda: Gain(100.0)), make_optimizer=adam(decay=0.5))
    assert confirmed(bench, "model.memory_scale").where == "memory"


class Multiplied(Speaker):
    """The memory's own module is quiet; code behind it multiplies."""

    def encode(self, text):
        return 100.0 * super().encode(text)


def test_a_memory_that_bare_code_makes_loud():
    found = confirmed(speaker_lab(Multiplied), "model.memory_scale")
    assert found.where == "memory" and found.evidence["RMS of the memory"] == pytest.approx(
        1.0, abs=0.01
    )
    assert found.evidence["multiplied behind that module by"] == pytest.approx(100.0, rel=0.01)


def test_a_loud_memory_that_the_decoder_turns_down_is_silent():
    class Louder(Speaker):
        def encode(self, text):
            return super().encode(text) / 30.0

    tried_in_vain(speaker_lab(with_parts(Louder, memory=lambda: Gain(30.0))), "model.memory_scale")
