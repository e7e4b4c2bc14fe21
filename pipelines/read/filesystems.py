"""The type of the file system that holds a path."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = (
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "smbfs", "9p", "afs",
    "panfs", "wekafs", "glusterfs", "orangefs", "pvfs2", "daos", "vastnfs", "fuse.sshfs",
    "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs", "fuse.glusterfs", "fuse.ceph",
    "fuse.beegfs", "fuse.lustre", "fuse.mount-s3", "fuse.goofys",
)  # fmt: skip


def filesystem(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Type of the file system that holds `path`, such as "ext4"; "" if it is unknown."""
    try:
        lines = os.fsdecode(mounts.read_bytes()).rstrip("\n").split("\n")
    except OSError:
        return ""
    resolved, depth, kind = path.resolve(), -1, ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = Path(mount.split(" ")[4].replace("\\040", " "))
        # A later mount on the same point hides the earlier one, hence >=.
        if resolved.is_relative_to(point) and len(point.parts) >= depth:
            depth, kind = len(point.parts), source.split()[0]
    return kind


def is_network(path: Path) -> bool:
    """Whether reads of `path` cross a network."""
    return filesystem(path) in NETWORK
