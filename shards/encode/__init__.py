"""Turn one source into one sample: probe, decode, normalise and encode it."""
