"""One source into one sample: probe, decode, normalise, encode."""
