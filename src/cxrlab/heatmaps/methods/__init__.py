"""Ways to draw what a network looks at."""
