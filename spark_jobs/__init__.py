"""The night: click lake, features, training sets, retraining, publication."""
