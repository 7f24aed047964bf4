"""The only place that does I/O, waits, retries, or imports httpx and tenacity."""
