"""Where text, memory, history and output are, found by running the model."""

from benchmarks.planted import ours, tacotron
from benchmarks.planted.architecture import draw_setting
from tts_workbook.lab.lab import Lab
from tts_workbook.measure.anatomy import anatomy


def test_the_anatomy_is_found_by_running():
    mine = anatomy(Lab(ours.ARCHITECTURE.clean(draw_setting(0))))
    assert (
        mine.embeddings == ("text_embedding",)
        and mine.memory == "memory_positions"
        and mine.output == "mel_projection_out"
    )
    assert mine.history_in == ("mel_projection_in",) and len(mine.histories) == 1
    theirs = anatomy(
        Lab(
            tacotron.ARCHITECTURE.clean(
                draw_setting(0, max_seconds=tacotron.ARCHITECTURE.max_seconds)
            )
        )
    )
    assert (
        theirs.embeddings == ("embedding",)
        and theirs.memory == "encoder"
        and theirs.output.startswith("postnet")
    )
    assert theirs.history_in[0].startswith("decoder.prenet")
    assert not any(name.startswith("decoder.decoder_rnn") for name in theirs.text_side)
