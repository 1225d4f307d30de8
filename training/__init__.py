"""Learn: features, towers, augmented vectors, losses, trainer, evaluation, the model bundle."""
