"""Build a split: plan the tars, write them with worker processes, finish and verify it."""
