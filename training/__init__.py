"""How a bundle is made: training set, towers, losses, trainer."""
