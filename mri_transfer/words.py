"""Sizes, times and reasons in plain words."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a text as a set; long lists are easier to read this way."""
    return frozenset(text.split())


def counted(number: int, noun: str) -> str:
    """ "1 image", "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_in_words(size: float) -> str:
    """A number of bytes: "512 bytes", "4.8 GB"."""
    size = min(size, 1e24)  # a header may claim a number too long for a float
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def reason_in_words(error: BaseException, limit: int = 200) -> str:
    """Why something can't be read, in one line of limited length; "" if the error doesn't say."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())[:limit]


def duration(seconds: float, *, spelled: bool = False) -> str:
    """About how long: "40 s", "12 min", "3.5 h"; spelled, "40 seconds", "12 minutes", "3.5 hours"."""
    second, minute, hour = ("seconds", "minutes", "hours") if spelled else ("s", "min", "h")
    if seconds < 90:
        return f"{seconds:.0f} {second}"
    return f"{seconds / 60:.0f} {minute}" if seconds < 5400 else f"{seconds / 3600:.1f} {hour}"


def hours_minutes_seconds(seconds: float) -> str:
    """Exactly how long: 4000 as "1 h 6 min", 75 as "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
