"""A predictions table becomes numbers: intervals, thresholds, calibration, subgroups, comparison."""
