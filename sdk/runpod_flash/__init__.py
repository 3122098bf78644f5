"""A light drop-in for the vendor's `runpod_flash`."""
