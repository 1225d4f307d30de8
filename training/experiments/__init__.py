"""The evidence: tuned comparisons, ablations and an A/B test, resumable, from a log to one report."""
