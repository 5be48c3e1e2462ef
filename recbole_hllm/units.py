"""Numbers, seconds and bytes as people read them."""

# Stands where there is no value.
MISSING = "–"


def format_integer(value: int | None) -> str:
    """12,345."""
    return MISSING if value is None else f"{value:,}"


def format_count(value: int | None) -> str:
    """812, 4.2k, 22.7M, 1.1B."""
    return MISSING if value is None else _scaled(value, ("", "k", "M", "B", "T"))


def format_bytes(value: int | None) -> str:
    """Decimal units: 1.4 GB is 1.4e9 bytes."""
    return MISSING if value is None else _scaled(value, (" B", " kB", " MB", " GB", " TB"))


def format_seconds(value: float | None) -> str:
    """0.8s, 45s, 3m 12s, 2h 5m."""
    if value is None:
        return MISSING
    if value < 9.95:
        return f"{value:.1f}s"
    seconds = round(value)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60}s"
    minutes = round(value / 60)
    return f"{minutes // 60}h {minutes % 60}m"


def gigabytes(size: float) -> str:
    """0.25 GiB; of less than 0.01 GiB, MiB or KiB: 2.44 KiB."""
    power, unit = next(((n, unit) for n, unit in ((30, "GiB"), (20, "MiB")) if size >= 0.005 * 2**n), (10, "KiB"))
    return f"{size / 2**power:.2f} {unit}" if size else "0.00 GiB"


def _scaled(value: int, units: tuple[str, ...]) -> str:
    """One decimal in the largest unit that leaves at least 1 before it; whole numbers in the first."""
    if value < 1000:
        return f"{value}{units[0]}"
    scaled = float(value)
    for unit in units[1:-1]:
        scaled /= 1000
        if round(scaled, 1) < 1000:
            return f"{scaled:.1f}{unit}"
    return f"{scaled / 1000:.1f}{units[-1]}"
