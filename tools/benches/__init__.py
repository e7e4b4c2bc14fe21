"""Benchmarks behind `python tools/bench.py`: a module for each subcommand, and what they share."""
