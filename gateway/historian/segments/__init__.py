"""Immutable Parquet segments: the store of our own that always runs."""
