"""Tests of the release wing."""
