"""How good a model is: splits, ranks, hit rates."""
