"""The checks that are not causes of their own file yet, in the order that they rely on."""

# isort: off
import tts_workbook.faults.checks.step
import tts_workbook.faults.checks.parameters
import tts_workbook.faults.checks.precision
import tts_workbook.faults.checks.losses
import tts_workbook.faults.checks.balance
import tts_workbook.faults.checks.model
import tts_workbook.faults.checks.order
import tts_workbook.faults.checks.activity
import tts_workbook.faults.checks.learning  # noqa: F401  they register their checks
from tts_workbook.faults.checks.registry import CHECKS

__all__ = ["CHECKS"]
