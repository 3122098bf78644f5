"""The worker's images, as a build has to know them."""

from __future__ import annotations

PYTHONS = ("3.11", "3.12", "3.13")
"""Pythons that there are images for; the worker runs on no older one."""
DEFAULT_PYTHON = "3.12"
PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_35", "linux/arm64": "aarch64-manylinux_2_35"}
"""Docker's names and uv's. An image's base is of Debian 12 or Ubuntu 22.04, or newer: glibc 2.35."""
DEFAULT_PLATFORM = "linux/amd64"
LARGE = ("torch", "torchvision", "torchaudio", "triton")
"""Never in an artifact, as at the vendor's: gigabytes that belong into an image."""
