"""The answer: a query's top N from the live index, over HTTP."""
