"""Runs: one, its folder, the runs it needs, its plan, its stages."""
