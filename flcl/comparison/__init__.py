"""Runs side by side: one table over seeds and orders, from what the runs have stored; no JAX."""

from flcl.comparison.table import Comparison, compare

__all__ = ["Comparison", "compare"]
