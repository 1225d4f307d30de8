"""The suite mirrors the packages; `tests.tiny` makes small real parts."""
