"""What night, day and answer share, in NumPy: settings, features, folds, the bundle."""
