"""Tests of the day, on a real broker."""
