"""What was chosen of the closed form for a log: a bundle holds it, and later nights take it over."""

from pydantic import BaseModel

GROWN = 1.5
"""A window may be so many times as large, or as small, as the one that a choice was made on."""


class ClosedFormChoice(BaseModel):
    """A weight and a ridge penalty, and what they were chosen on."""

    weight: float
    l2: float
    why: str
    """With the figures."""
    clicks: int
    """Those of the window that it was made on."""
    asked: str
    """A hash of the card and the settings that it was made with."""

    def holds(self, asked: str, clicks: int) -> bool:
        """Whether it holds for a window of so many clicks, of this card and these settings."""
        return self.asked == asked and self.clicks / GROWN <= clicks <= self.clicks * GROWN
