"""Crashes on purpose, and the proof that every click counted once."""
