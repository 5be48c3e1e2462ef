"""Rows of training and evaluation, computed from flat sequences when asked for."""
