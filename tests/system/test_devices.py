"""Devices and slots, with a driver's management library that answers as the real one does."""

from types import SimpleNamespace

import pynvml
import pytest

from flash_runtime.errors import SettingFault
from flash_runtime.system.devices import Device, Slot, discover, slots

UUIDS = [f"GPU-{number:08x}-0000-0000-0000-000000000000" for number in range(4)]


class Nvml:
    """Stands for pynvml; `gpus` maps a UUID to its MIG instances, or to None where MIG is off."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE

    def __init__(self, gpus, broken=()):
        self.gpus, self.broken, self.open = gpus, broken, False

    def nvmlInit(self):
        if self.gpus is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.open = True

    def nvmlShutdown(self):
        self.open = False

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        if index in self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        uuid = list(self.gpus)[index]
        return SimpleNamespace(uuid=uuid, instances=self.gpus[uuid])

    def nvmlDeviceGetUUID(self, handle):
        return handle.uuid

    def nvmlDeviceGetMigMode(self, handle):
        if handle.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return (1, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):
        if index % 2 or index // 2 >= len(handle.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return SimpleNamespace(uuid=handle.instances[index // 2])


def found(cuda, nvidia, gpus=None, broken=()):
    nvml = Nvml(gpus, broken)
    ids = [device.id for device in discover(cuda, nvidia, lambda: nvml)]
    assert not nvml.open
    return ids


FOUR = dict.fromkeys(UUIDS)
MIG = {UUIDS[0]: ["MIG-a", "MIG-b"], UUIDS[1]: None}


@pytest.mark.parametrize(
    ("cuda", "nvidia", "gpus", "expected"),
    [
        ("0,1,2,3", None, None, ["0", "1", "2", "3"]),
        (" 2, 0 ", "all", FOUR, ["2", "0"]),
        ("", "all", FOUR, []),
        ("-1", None, FOUR, []),
        ("0,-1,2", None, FOUR, ["0"]),
        ("none", None, FOUR, []),
        (UUIDS[2], None, FOUR, [UUIDS[2]]),
        ("MIG-a,MIG-b", None, None, ["MIG-a", "MIG-b"]),
        ("all", None, FOUR, UUIDS),
        (None, None, None, []),
        (None, None, FOUR, UUIDS),
        (None, "all", FOUR, UUIDS),
        (None, "void", FOUR, UUIDS),
        (None, "none", FOUR, []),
        (None, "", FOUR, []),
        (None, "nvidia.com/gpu=all", FOUR, UUIDS),
        (None, "1,3", dict.fromkeys(UUIDS[:2]), UUIDS[:2]),
        (None, "1,3", FOUR, [UUIDS[1], UUIDS[3]]),
        (None, "2,3", None, ["0", "1"]),
        (None, UUIDS[1], None, [UUIDS[1]]),
        (None, "all", MIG, ["MIG-a", "MIG-b", UUIDS[1]]),
    ],
)
def test_the_environment_decides_then_the_driver(cuda, nvidia, gpus, expected):
    assert found(cuda, nvidia, gpus) == expected


def test_a_lost_gpu_takes_no_other_out_of_service(caplog):
    assert found(None, "all", FOUR, broken=(1,)) == [UUIDS[0], UUIDS[2], UUIDS[3]]
    assert "GPU 1 is not used" in caplog.text


@pytest.mark.parametrize("value", ["0,0", "0,00", "first", "0;1", "GPU_1", f"{UUIDS[0]},{UUIDS[0]}"])
def test_a_list_that_names_no_devices_is_a_fault(value):
    with pytest.raises(SettingFault, match="CUDA_VISIBLE_DEVICES"):
        found(value, None)


def test_slots_are_one_a_device_and_share_or_leave_devices_where_told():
    two = (Device("0"), Device("1"))
    assert slots(two, None) == (Slot(0, two[0]), Slot(1, two[1]))
    assert slots((), None) == (Slot(0, None),)
    assert slots(two, 1) == (Slot(0, two[0]),)
    assert [slot.device for slot in slots(two, 4)] == [*two, *two]
    assert slots(two, None)[1].environ() == {"CUDA_VISIBLE_DEVICES": "1"}
    assert slots((), 2)[1].environ() == {}
