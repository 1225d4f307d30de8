"""Measurements of whole parts of the system, each a command of its own: `python -m benchmarks.<name>`."""
