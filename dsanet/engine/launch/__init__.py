"""Processes: how they are started, find each other, and are stopped."""
