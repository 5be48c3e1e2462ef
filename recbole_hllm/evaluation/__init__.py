"""Turning scores into ranks and metrics; the metrics themselves are RecBole's."""
