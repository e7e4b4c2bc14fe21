"""The parts of `python tools/gpu_check.py`: a module for each part, and what runs them."""
