"""Calls of functions and classes by name, from other endpoints and to them."""
