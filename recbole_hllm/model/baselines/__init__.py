"""Models that the three systems are compared with, and RecBole's that need a repair."""
