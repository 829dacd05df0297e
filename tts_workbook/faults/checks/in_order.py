"""The checks that are not causes of their own file yet, in the order that they rely on."""

# isort: off
import tts_workbook.faults.checks.data
import tts_workbook.faults.checks.durations
import tts_workbook.faults.checks.features
import tts_workbook.faults.checks.restart
import tts_workbook.faults.checks.generation
import tts_workbook.faults.checks.stopping  # noqa: F401  they register their checks
from tts_workbook.faults.checks.registry import CHECKS

__all__ = ["CHECKS"]
