"""File systems of paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.read.filesystems import filesystem, is_network

MOUNTS = """\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /data rw,relatime shared:1 - nfs4 server:/data rw
31 30 8:2 / /data/local rw - xfs /dev/sdb rw
32 22 0:41 / /with\\040space rw - lustre a rw
33 22 0:42 / /line\u2028\u3000separator rw - ceph a rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/x", "ext4"),
        ("/data/k400", "nfs4"),
        ("/data/local/k400", "xfs"),
        ("/database", "ext4"),
        ("/with space/a", "lustre"),
        ("/line\u2028\u3000separator/a", "ceph"),
    ],
)
def test_the_file_system_of_a_path(tmp_path, path, kind):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS, encoding="utf-8")
    assert filesystem(Path(path), mounts) == kind


def test_file_systems_of_this_machine(tmp_path):
    assert filesystem(tmp_path)
    assert filesystem(Path("/proc/self")) == "proc"
    assert not is_network(Path("/proc"))
