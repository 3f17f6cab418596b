"""Simulated acquisitions with known truth."""
