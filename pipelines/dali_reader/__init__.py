"""The reader that is DALI alone (`--loader.reader webdataset`)."""
