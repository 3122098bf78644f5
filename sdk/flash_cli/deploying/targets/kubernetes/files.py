"""The files of a deployment to Kubernetes: its objects, and the build contexts of its images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from flash_cli.deploying.services import TOKEN, slug
from flash_cli.deploying.target import DOCKERFILE
from flash_cli.deploying.targets.kubernetes.objects import Object
from flash_cli.faults import OutputFault


class Written:
    """The files of one environment, below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def objects(self, objects: Mapping[str, list[Object]]) -> None:
        """Write a file for each name, and remove others. Only their owner can read them: one has secrets."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for stale in self.directory.glob("*.yaml"):
                stale.unlink()
            for name, each in objects.items():
                text = yaml.safe_dump_all(each, sort_keys=False)
                descriptor = os.open(
                    self.directory / f"{name}.yaml", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
                )
                with os.fdopen(descriptor, "w") as file:
                    file.write(text)
        except OSError as error:
            raise _unwritable(self.directory, error) from None

    def token(self) -> str | None:
        """The token in the Secret that was written last, if there is one."""
        try:
            secret = yaml.safe_load((self.directory / "_secret.yaml").read_text())
            return str(secret["stringData"][TOKEN])
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return None

    def context(self, image: str) -> Path:
        """The build context of an image."""
        return self.directory / "images" / slug(image.rpartition(":")[2])

    def contexts(self, images: Mapping[str, str], artifact: Path) -> None:
        """Write a build context for each image: a Dockerfile, and the artifact beside it."""
        try:
            shutil.rmtree(self.directory / "images", ignore_errors=True)
            for image, base in images.items():
                context = self.context(image)
                context.mkdir(parents=True)
                (context / "Dockerfile").write_text(DOCKERFILE.format(base=base))
                shutil.copyfile(artifact, context / "artifact.tar.gz")
        except OSError as error:
            raise _unwritable(self.directory, error) from None


def _unwritable(directory: Path, error: OSError) -> OutputFault:
    return OutputFault(
        f"The objects cannot be written: {error.strerror}.",
        where=str(directory),
        remedy="make the directory writable.",
    )
