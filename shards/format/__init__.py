"""The files of a shard set: tars, side files, manifest, and the index that opens a split."""
