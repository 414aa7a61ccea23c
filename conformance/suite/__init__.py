"""Runs test suites and clients of other projects against bowline."""
