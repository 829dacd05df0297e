"""The checks that are not causes of their own file yet, in the order that they rely on."""

from tts_workbook.faults.checks.registry import CHECKS

__all__ = ["CHECKS"]
