"""The day: clicks become augmented vectors, augmented vectors become item vectors."""
