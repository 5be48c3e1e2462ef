"""User models: what reads a history and says what the user is to be compared with, without RecBole and without data."""
