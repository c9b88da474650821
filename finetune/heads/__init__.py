"""From features or pixels to classes: probe, nearest neighbours, forest, fine-tuned classifier. Knows no arms."""
