"""The LightningModule and what only training needs."""
