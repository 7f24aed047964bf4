"""One pure codec per dialect. No module here opens a socket or reads a clock, a file or the environment."""
