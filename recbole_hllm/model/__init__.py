"""Recommenders, a folder for each system, and what they share."""
