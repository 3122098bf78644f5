"""Volumes and templates of the vendor's platform. They are stored, and the worker does not use them."""

from __future__ import annotations

from typing import Any

from runpod_flash.hardware import DataCenter


class NetworkVolume:
    """A network volume, with a name or an id. `size` is in GB.

    `datacenter` and `dataCenterId` are the same, as at the vendor's. Raises `ValueError` without a name and
    an id, or for a size that is not offered.
    """

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002  the vendor's name
        name: str | None = None,
        size: int | None = 100,
        datacenter: DataCenter | str | None = None,
        dataCenterId: DataCenter | str = DataCenter.EU_RO_1,  # noqa: N803  the vendor's name
    ) -> None:
        if name is not None and not name.strip():
            raise ValueError("NetworkVolume: name must not be empty")
        if not name and not id:
            raise ValueError("NetworkVolume: either 'name' or 'id' must be provided")
        if size is not None and not 10 <= size <= 4096:
            raise ValueError(f"NetworkVolume: size must be from 10 to 4096 GB, got {size}")
        self.id = id
        self.name = name
        self.size = size
        self.dataCenterId = DataCenter(dataCenterId if datacenter is None else datacenter)

    @property
    def datacenter(self) -> DataCenter:
        """The volume's data centre."""
        return self.dataCenterId

    def __repr__(self) -> str:
        return f"NetworkVolume(name={self.name!r}, id={self.id!r}, datacenter={self.dataCenterId.value!r})"


class PodTemplate:
    """How the vendor's platform starts a container: the vendor's fields, by keyword.

    As at the vendor's, unknown keywords are ignored.
    """

    def __init__(self, **fields: Any) -> None:
        defaults: dict[str, Any] = {
            "id": None,
            "advancedStart": False,
            "config": {},
            "containerDiskInGb": 64,
            "containerRegistryAuthId": "",
            "dockerArgs": "",
            "env": [],
            "imageName": "",
            "name": "",
            "ports": "",
            "startScript": "",
        }
        vars(self).update({name: fields.get(name, default) for name, default in defaults.items()})

    def __getattr__(self, name: str) -> Any:  # for type checkers: the fields are known at run time only
        raise AttributeError(f"PodTemplate has no field {name!r}")

    def __repr__(self) -> str:
        return f"PodTemplate(name={self.name!r}, imageName={self.imageName!r})"
