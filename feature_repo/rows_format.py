"""The format of what is registered in Feast, and of the rows that are written online under it."""

FORMAT = 1
"""Of what this release writes. It reads its own and the one before; 0.1 wrote none, which is 1."""
TAG = "format"
"""Under which the registered feature services carry it."""
