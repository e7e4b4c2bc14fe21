"""Sharding: plan the tars, write them with a pool of processes, finish and verify a split."""
