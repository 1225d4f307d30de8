"""Tuned comparisons, ablations and a simulated A/B test; resumable."""
