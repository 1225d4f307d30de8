"""The one typed settings object, a part a file."""
