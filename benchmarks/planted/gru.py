"""The convolution and GRU model, held out until the record of 2026-11; it is tuned on since.

Its files stay beside the tests of the diagnosis, where it was written blind.
"""

from tests.tts_workbook.diagnosis.gru_plants import ARCHITECTURE

__all__ = ["ARCHITECTURE"]
