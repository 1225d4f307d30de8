"""Online experiments: which arm answers, what was shown, what was clicked."""
