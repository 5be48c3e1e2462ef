"""The service: recommendations over HTTP from an export; needs the extra ``serve``."""
