"""Keeps a worker running in every slot."""
