"""What a build has to know about the worker's images."""

from __future__ import annotations

PYTHONS = ("3.11", "3.12", "3.13")
"""The Python versions of the images. The worker needs at least the first."""
DEFAULT_PYTHON = "3.12"
PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_35", "linux/arm64": "aarch64-manylinux_2_35"}
"""Docker's names with uv's names. The images are Debian 12, Ubuntu 22.04 or newer: glibc 2.35."""
DEFAULT_PLATFORM = "linux/amd64"
LARGE = ("torch", "torchvision", "torchaudio", "triton")
"""Packages that are never packed, as at the vendor's: their gigabytes belong into an image."""
