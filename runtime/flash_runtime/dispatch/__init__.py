"""Crosses between the loops and the handler threads."""
