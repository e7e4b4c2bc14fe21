"""Bytes from disk: frames, groups of pictures, staging to local disks."""
