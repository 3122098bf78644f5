"""The tree: what is written is written whole, or fails."""

import io
import resource

import pytest

from flash_runtime.artifact.tree import tree


def test_a_file_that_can_be_written_only_in_part_is_an_error(tmp_path):
    """The file system takes a part of a write without an error where there is room for no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with tree(tmp_path) as place:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                place.write(["a"], io.BytesIO(bytes(600_000)), 0o644, 0.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_time_of_a_file_is_the_members(tmp_path):
    with tree(tmp_path) as place:
        place.write(["d", "a"], io.BytesIO(b"x" * 100), 0o640, 1234.0)
    found = (tmp_path / "d" / "a").stat()
    assert (found.st_mtime, found.st_mode & 0o777, found.st_size) == (1234.0, 0o640, 100)
