"""Processes, sockets and GPUs."""
