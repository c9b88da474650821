"""Plans made before looking at figures, and a record of how often images were scored."""
