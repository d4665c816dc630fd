"""Networks, their preprocessing, and the LightningModule around them."""
