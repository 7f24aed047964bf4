"""The clock: zones by name and offset, conversion across clock changes, calendar arithmetic at its limits."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, date, datetime

import pytest

from lmagent import ToolError
from lmagent.tools import clock
from lmagent.tools.clock import add_to_date, convert_time, current_time, days_between


@pytest.fixture(autouse=True)
def _noon(monkeypatch):
    monkeypatch.setattr(clock, "_now", lambda zone: datetime(2025, 3, 1, 12, 30, 15, 999, tzinfo=UTC).astimezone(zone))
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "answer"),
    [
        ("UTC", "2025-03-01 12:30:15+00:00 Saturday (UTC)"),
        ("Asia/Shanghai", "2025-03-01 20:30:15+08:00 Saturday (Asia/Shanghai)"),
        ("asia/shanghai", "2025-03-01 20:30:15+08:00 Saturday (Asia/Shanghai)"),
        ("America/New York", "2025-03-01 07:30:15-05:00 Saturday (America/New_York)"),
        ("UTC+8", "2025-03-01 20:30:15+08:00 Saturday (UTC+8)"),
        ("-05:30", "2025-03-01 07:00:15-05:30 Saturday (-05:30)"),
        ("local", "2025-03-01 13:30:15+01:00 Saturday (local)"),
    ],
)
def test_current_time_accepts_names_offsets_and_local(zone: str, answer: str):
    assert current_time(zone) == answer


def test_default_zone_is_that_of_the_machine():
    assert current_time().endswith("+01:00 Saturday (local)")


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("Shanghai", "Did you mean Asia/Shanghai"),
        ("Asia/Beijing", "Unknown time zone 'Asia/Beijing'"),
        ("Asia/Shangai", "Asia/Shanghai"),
        ("Berln", "Europe/Berlin"),
        ("UTC+25", "at most 14 hours"),
        ("America", "Unknown time zone"),
        ("../../etc/passwd", "Unknown time zone"),
        ("/etc/localtime", "Unknown time zone"),
        ("a\x00b", "Unknown time zone"),
        ("\ud800", "Unknown time zone"),
        ("x" * 10_000, "Unknown time zone"),
        ("nowhere at all", "Use a name such as Asia/Shanghai"),
    ],
)
def test_error_for_an_unknown_zone_names_similar_zones(zone: str, said: str):
    with pytest.raises(ToolError) as caught:
        current_time(zone)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_convert_time_converts_between_zones():
    noon = datetime(2025, 7, 1, 12)
    assert convert_time(noon, "Asia/Shanghai", "UTC") == "2025-07-01 20:00:00+08:00 Tuesday (Asia/Shanghai)"
    assert convert_time(noon, "UTC") == "2025-07-01 10:00:00+00:00 Tuesday (UTC)"
    assert convert_time(noon.replace(tzinfo=UTC), "local", "Asia/Tokyo") == "2025-07-01 14:00:00+02:00 Tuesday (local)"


def test_time_skipped_by_a_clock_change_is_rejected():
    with pytest.raises(ToolError, match="a clock change skips it"):
        convert_time(datetime(2025, 3, 30, 2, 30), "UTC", "Europe/Berlin")
    with pytest.raises(ToolError, match="a clock change skips it"):
        convert_time(datetime(2025, 3, 30, 2, 30), "UTC")


def test_time_that_occurs_twice_means_the_first():
    twice = datetime(2025, 10, 26, 2, 30)
    assert convert_time(twice, "UTC", "Europe/Berlin") == "2025-10-26 00:30:00+00:00 Sunday (UTC)"


@pytest.mark.parametrize("edge", [datetime.min, datetime.max])
@pytest.mark.parametrize("there", ["UTC+14", "UTC-14", "local"])
def test_conversion_at_the_first_and_last_year_raises_only_tool_errors(edge: datetime, there: str):
    for here in ("UTC+14", "UTC-14", "local", "Asia/Shanghai"):
        with contextlib.suppress(ToolError):
            assert convert_time(edge, there, here)


def test_days_between_counts_in_both_directions():
    answer = "29 days from 2025-01-31 (Friday) to 2025-03-01 (Saturday)"
    assert days_between(date(2025, 1, 31), date(2025, 3, 1)) == answer
    assert days_between(date(2025, 3, 1), date(2025, 1, 31)).startswith("-29 days")


@pytest.mark.parametrize(
    ("shift", "answer"),
    [
        ({"days": 1}, "2024-02-01 (Thursday)"),
        ({"weeks": -1}, "2024-01-24 (Wednesday)"),
        ({"months": 1}, "2024-02-29 (Thursday)"),
        ({"months": 13}, "2025-02-28 (Friday)"),
        ({"months": -1}, "2023-12-31 (Sunday)"),
        ({"years": 1, "days": 1}, "2025-02-01 (Saturday)"),
        ({}, "2024-01-31 (Wednesday)"),
    ],
)
def test_add_to_date_adds_days_weeks_months_and_years(shift: dict[str, int], answer: str):
    assert add_to_date(date(2024, 1, 31), **shift) == answer


@pytest.mark.parametrize("shift", [{"years": 9999}, {"years": -9999}, {"days": 10**20}, {"months": -(10**30)}])
def test_date_out_of_range_is_a_tool_error(shift: dict[str, int]):
    with pytest.raises(ToolError, match="years 1 to 9999"):
        add_to_date(date(2024, 1, 31), **shift)


def test_current_time_reads_the_system_clock(monkeypatch):
    monkeypatch.undo()
    assert current_time("UTC")[:10] == datetime.now(UTC).date().isoformat()
    assert "TZ" not in os.environ or os.environ["TZ"] != "Europe/Berlin"
