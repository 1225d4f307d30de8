"""The two stages of the updater: clicks to augmented vectors, signals to item vectors."""
