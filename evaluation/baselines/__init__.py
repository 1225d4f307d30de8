"""The models that DAT is compared with."""
