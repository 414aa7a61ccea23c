"""Runs other people's test suites and clients against bowline."""
