"""What is on disk: tars, side files, manifest, and the index that opens a split."""
