"""Errors, progress of long work, files that appear whole or not at all, random state."""
