"""What was decided before the look, and how often there was one: plans on disk, and a record of what was scored."""
