"""Optimisation, checkpoints and run folders."""
