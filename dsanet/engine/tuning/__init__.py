"""Choosing the loader's settings of speed by trying them beside the network."""
