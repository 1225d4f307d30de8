"""The one command: settings, verbs, and the local stack the demo starts."""
