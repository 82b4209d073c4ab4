"""Benchmarks: what is ours, side by side with a peer, in one run on one machine. Never a timed test.

Run with ``make bench`` or ``python -m benchmarks [NAME ...]`` from the repository's root; docs/benchmarks.md says what
the figures mean.
"""
