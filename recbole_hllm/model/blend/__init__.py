"""Blend: the weighted sum of what finished runs say."""
