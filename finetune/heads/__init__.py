"""From features or pixels to classes: probe, nearest neighbours, forest, fine-tuned classifier. Unaware of arms."""
