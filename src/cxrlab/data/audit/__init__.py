"""What is wrong with this data: leakage, duplicates, contradictions, unreadable and odd images, drift."""
