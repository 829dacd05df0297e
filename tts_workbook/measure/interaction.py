"""Two causes of the same damage, alone and together."""

from __future__ import annotations

from dataclasses import dataclass

from tts_core.errors import WorkbookError

question = "Do two causes of one damage multiply, or does one hide the other?"


@dataclass(frozen=True)
class TwoByTwo:
    """One error in the four cells of two on/off faults; all positive."""

    neither: float
    first: float  # the first fault alone
    second: float  # the second fault alone
    both: float

    def __post_init__(self) -> None:
        if not all(value > 0 for value in vars(self).values()):
            raise WorkbookError(f"two by two: {self}, but ratios need errors above zero")

    @property
    def first_ratio(self) -> float:
        """What the first fault does to a sound model: times the error."""
        return self.first / self.neither

    @property
    def second_ratio(self) -> float:
        """What the second fault does to a sound model."""
        return self.second / self.neither

    @property
    def second_given_first(self) -> float:
        """What the second fault does once the first is there."""
        return self.both / self.first

    @property
    def interaction(self) -> float:
        """`second_given_first` over `second_ratio`, symmetric in the faults: 1 where they multiply,
        below 1 where the one hides the other, above 1 where each makes the other worse.
        """
        return self.both * self.neither / (self.first * self.second)
