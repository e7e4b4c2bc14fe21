"""Encoded frames to crops: the DALI graph and the resize on the CPU."""
