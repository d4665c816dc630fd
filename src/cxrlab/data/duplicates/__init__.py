"""Images that are the same, or nearly: perceptual hashes, alignment, search, overlap of two data sets."""
