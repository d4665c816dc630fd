"""What can be said for and against heatmaps."""
