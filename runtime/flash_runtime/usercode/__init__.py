"""Imports user code, and makes sense of what it raises."""
