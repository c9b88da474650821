"""The subject of each scan: decided over a whole collection, shown with evidence, correctable by a pattern or table."""
