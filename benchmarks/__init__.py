"""Benchmarks: ours beside the physical limit and a peer, in one run on one machine. `python -m benchmarks B2`."""
