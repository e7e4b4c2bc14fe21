"""Benchmarks behind `python tools/bench.py`: one module per subcommand."""
