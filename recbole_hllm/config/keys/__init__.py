"""Every key of this package, and what it makes of RecBole's, declared once: the files are light and import no torch."""
