"""Predictions and targets -> numbers with intervals."""
