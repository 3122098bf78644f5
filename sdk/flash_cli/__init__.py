"""The command `flash`: run, build and deploy an application that is written with `runpod_flash`."""
