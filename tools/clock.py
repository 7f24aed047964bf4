"""Clock and calendar: the time in any zone, conversion between zones, days between dates.

The tools read only the clock and the time zone database of the machine. Zones are IANA names, UTC offsets such as
`UTC+8`, or `local` for the zone of the machine that runs the tool.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import timezone as fixed_offset
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from lmagent import ToolError, function

__all__ = ["add_to_date", "convert_time", "current_time", "days_between"]

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)
_MAX_ZONE_LENGTH = 64
# Not `%A`: its result depends on the locale that the program sets.
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@function
def current_time(timezone: str = "local") -> str:
    """Tell the current date, time and weekday.

    Args:
        timezone: Zone name such as Asia/Shanghai, an offset such as UTC+8, or local.
    """
    return _show(_now(_zone(timezone)), timezone)


@function
def convert_time(time: datetime, to_timezone: str, from_timezone: str = "local") -> str:
    """Convert a date and time from one time zone to another.

    Args:
        time: Such as 2025-03-30T14:00.
        to_timezone: Zone name such as Asia/Shanghai, an offset such as UTC+8, or local.
        from_timezone: Zone of the given time; ignored if the time carries an offset itself.
    """
    source, target = _zone(from_timezone), _zone(to_timezone)
    try:
        moment = time if time.tzinfo else _placed(time, source, from_timezone)
        return _show(moment.astimezone(target), to_timezone)
    except (OverflowError, ValueError, OSError):
        raise _out_of_range() from None


@function
def days_between(start: date, end: date) -> str:
    """Count the days from one date to another; negative if the end is earlier.

    Args:
        start: Such as 2025-01-31.
        end: Such as 2025-03-01.
    """
    days = (end - start).days
    return f"{days} days from {_day(start)} to {_day(end)}"


@function
def add_to_date(start: date, days: int = 0, weeks: int = 0, months: int = 0, years: int = 0) -> str:
    """Add days, weeks, months or years to a date; negative numbers go back.

    Args:
        start: Such as 2025-01-31.
        days: Days to add.
        weeks: Weeks to add.
        months: Months to add; a day that the month does not have becomes its last day.
        years: Years to add.
    """
    try:
        year, month = divmod(start.year * 12 + start.month - 1 + years * 12 + months, 12)
        day = min(start.day, calendar.monthrange(year, month + 1)[1])
        result = date(year, month + 1, day) + timedelta(days=days, weeks=weeks)
    except (OverflowError, ValueError):
        raise _out_of_range() from None
    return _day(result)


def _now(zone: tzinfo | None) -> datetime:
    return datetime.now(UTC).astimezone(zone)


def _zone(name: str) -> tzinfo | None:
    """Return the zone called `name`, None for that of the machine. The error for an unknown name has similar ones."""
    if name.strip().lower() in ("local", ""):
        return None
    offset = _OFFSET.fullmatch(name.strip().replace(" ", ""))
    if offset:
        sign, hours, minutes = offset.groups()
        shift = timedelta(hours=int(hours), minutes=int(minutes or 0))
        if shift > timedelta(hours=14):
            raise ToolError(f"{name!r} is not a time zone: an offset has at most 14 hours.")
        return fixed_offset(-shift if sign == "-" else shift)
    if len(name) <= _MAX_ZONE_LENGTH:
        try:
            return ZoneInfo(name)
        # Names of folders raise OSError, unusual characters ValueError.
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    return _similar(name[:_MAX_ZONE_LENGTH])


def _similar(name: str) -> ZoneInfo:
    zones = {zone.lower(): zone for zone in available_timezones()}
    wanted = name.strip().lower().replace(" ", "_")
    if wanted in zones:
        return ZoneInfo(zones[wanted])
    cities: dict[str, list[str]] = {}
    for zone in sorted(zones):
        cities.setdefault(zone.rpartition("/")[2], []).append(zones[zone])
    city = wanted.rpartition("/")[2]
    close = [*cities.get(city, ()), *(zones[zone] for zone in get_close_matches(wanted, zones, n=3, cutoff=0.7))]
    for match in get_close_matches(city, cities, n=3, cutoff=0.75):
        close.extend(cities[match])
    hint = f" Did you mean {', '.join(list(dict.fromkeys(close))[:5])}?" if close else ""
    raise ToolError(
        f"Unknown time zone {name!r}.{hint} Use a name such as Asia/Shanghai, an offset such as UTC+8, or local."
    )


def _placed(time: datetime, zone: tzinfo | None, name: str) -> datetime:
    """Return `time` as a moment in a zone; a time that occurs twice means the first occurrence."""
    moment = time.replace(tzinfo=zone) if zone else time.astimezone()
    there = moment.astimezone(UTC).astimezone(zone)
    if there.replace(tzinfo=None) != time:
        raise ToolError(f"{time.isoformat(' ')} does not exist in {name}: a clock change skips it.")
    return moment


def _show(moment: datetime, name: str) -> str:
    zone = moment.tzinfo.key if isinstance(moment.tzinfo, ZoneInfo) else name.strip() or "local"
    return f"{moment.isoformat(' ', 'seconds')} {_WEEKDAYS[moment.weekday()]} ({zone})"


def _day(day: date) -> str:
    return f"{day.isoformat()} ({_WEEKDAYS[day.weekday()]})"


def _out_of_range() -> ToolError:
    return ToolError("The date is outside the years 1 to 9999.")
