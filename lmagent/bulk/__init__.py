"""The parts of a bulk run: work, starts, journal, progress, and the run that puts them together."""
