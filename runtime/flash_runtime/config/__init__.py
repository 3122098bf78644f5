"""Reads the environment once, into a frozen record."""
